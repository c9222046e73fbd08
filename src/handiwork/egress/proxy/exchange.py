"""One request and its answer: judged on its own, sent, streamed, masked, recorded."""

from typing import TYPE_CHECKING

from handiwork.egress import rewrite
from handiwork.egress.proxy import answers
from handiwork.egress.proxy.dial import GUARD, Destination, DialError, destination_of
from handiwork.egress.proxy.grants import NOTHING, Granted, Injected
from handiwork.egress.proxy.heads import (
    FRAMING,
    PLACEHOLDER,
    Facts,
    Place,
    Refusal,
    Shown,
    origin_form,
    path_of,
)
from handiwork.egress.proxy.upstream import Upstream
from handiwork.model.errors import HandiworkError
from handiwork.model.placeholder import placeholders_in
from handiwork.model.policy import Decision, EgressRequest

if TYPE_CHECKING:
    from handiwork.egress.proxy.flow import Flow

LIMITS = "limits"
_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
_CODED = frozenset({b"content-encoding", b"transfer-encoding", b"sec-websocket-extensions"})
_MAX_UNSENT = 65_536
_GUEST_LEFT = "the guest went away"


class Exchange:
    """Lives from the end of the request's head to the end of the answer; owned by its flow."""

    __slots__ = (
        "_body",
        "_destination",
        "_head",
        "_incoming",
        "_outgoing",
        "_outgoing_bytes",
        "address",
        "bytes_in",
        "bytes_out",
        "chunked_in",
        "chunked_out",
        "decision",
        "done",
        "flow",
        "granted",
        "has_body",
        "head_only",
        "headers",
        "injected",
        "keep_alive",
        "mask",
        "method",
        "path",
        "place",
        "request",
        "retried",
        "started",
        "status",
        "target",
        "tunnelling",
        "upgrade",
        "upstream",
        "version",
        "whole",
    )

    def __init__(
        self,
        flow: "Flow",
        method: bytes,
        target: bytes,
        headers: list[tuple[bytes, bytes]],
        *,
        version: str,
        keep_alive: bool,
        upgrade: bool,
    ) -> None:
        self.flow = flow
        self.method = method
        self.target = target
        self.headers = headers
        self.version = version
        self.keep_alive = keep_alive
        self.upgrade = upgrade
        self.head_only = method == b"HEAD"
        self.has_body = False
        self.whole = False
        self.done = False
        self.tunnelling = False
        self.retried = False
        self.chunked_out = False
        self.chunked_in = False
        self.upstream: Upstream | None = None
        self.address = ""
        self.place: Place | None = None
        self.path = ""
        self.request: EgressRequest | None = None
        self.granted: Granted | None = None
        self.decision: Decision | None = None
        self.injected: Injected = NOTHING
        self.mask = NOTHING.mask
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.started = 0.0
        self._head = b""
        self._destination: Destination | None = None
        self._incoming: list[bytes] = []
        self._body: list[bytes] = []
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0

    # The request, from the guest.

    def begin(self) -> None:
        """Judge the request by the grant as it is now, and send it or answer it.

        A request whose grant changed while it waited begins again, with nothing of the old one.
        """
        self.started = self.flow.binding.plane.clock()
        self.injected, self.mask = NOTHING, NOTHING.mask
        try:
            self._judge()
        except Refusal as refusal:
            self.refuse(refusal.status, refusal.rule, refusal.reason)
            return
        self._send()

    def body(self, data: bytes) -> None:
        """Take a piece of the request's body."""
        if self.done or not data:
            return
        self._outgoing.append(data)
        self._outgoing_bytes += len(data)
        self.bytes_out += len(data)

    def completed(self) -> None:
        """Hear that the request is whole; trailers were dropped."""
        self.whole = True
        if not self.done and (self.chunked_out or self.request is None):
            self._outgoing.append(b"")

    def push(self) -> None:
        """Send on what was taken of the body, or hold the guest while there is nowhere to."""
        if not self._outgoing or self.done:
            return
        if self.upstream is None:
            if self._outgoing_bytes > _MAX_UNSENT:
                self.flow.hold_reading(unsent=True)
            return
        self.upstream.transport.write(self._taken())

    def _taken(self) -> bytes:
        """Return what was taken of the body, in the framing that the head tells.

        Framed only here: a body can come before its request is judged. An empty piece is the end.
        """
        pieces = self._outgoing
        if self.chunked_out:
            pieces = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces]
        taken = b"".join(pieces)
        self._outgoing.clear()
        self._outgoing_bytes = 0
        return taken

    def tunnel(self, data: bytes) -> None:
        """Pass raw bytes on to the upstream."""
        self.bytes_out += len(data)
        if self.upstream is not None:
            self.upstream.transport.write(data)

    def judge_again(self) -> bool:
        """Say whether a tunnel that is open may stay open under the grant as it is now."""
        if self.request is None:
            return False
        decision = self.flow.binding.granted.policy.decide(self.request)
        return decision.allowed and decision == self.decision

    def _judge(self) -> None:
        if self.version != "1.1":
            raise Refusal(505, FRAMING, "only HTTP/1.1 is spoken here")
        if self.method == b"CONNECT":
            raise Refusal(400, FRAMING, "CONNECT is not spoken here: use the absolute form")
        facts = self.flow.facts
        if facts is None or facts.headers != self.headers:
            self.flow.facts = facts = Facts(self.headers)
        self.chunked_out, self.has_body = facts.chunked, facts.has_body
        if self.upgrade:
            self._judge_upgrade(facts)
        self.place = place = self.flow.place(self.target, facts.host)
        path, query = path_of(origin_form(self.target))
        self.path = path
        binding = self.flow.binding
        self.request = EgressRequest(
            scheme=place.scheme,
            host=place.host,
            port=place.port,
            method=self.method.decode("ascii"),
            path=path,
            tool=binding.identity.tool,
        )
        self.granted = granted = binding.granted
        self.decision = decision = granted.policy.decide(self.request)
        if not decision.allowed:
            raise Refusal(403, decision.rules[-1], decision.reason)
        if binding.requests > binding.settings.max_requests:
            raise Refusal(503, LIMITS, "too many requests of this sandbox are under way")
        meant = self._meant(granted, facts, place)
        if decision.injections or meant:
            self._open_secrets(granted, decision, place, meant)
        self._write_head(f"{path}?{query}" if query else path, place, facts)
        self._destination = destination_of(self.request, decision)

    def _meant(self, granted: Granted, facts: Facts, place: Place) -> tuple[bytes, ...]:
        """Return the placeholders to replace; one of another session does not leave."""
        if granted.foreign((*facts.placeholders, *placeholders_in(self.target))):
            raise Refusal(403, PLACEHOLDER, "the request carries a placeholder of another session")
        return granted.meant(facts.placeholders, place.host) if facts.placeholders else ()

    def _open_secrets(
        self, granted: Granted, decision: Decision, place: Place, meant: tuple[bytes, ...]
    ) -> None:
        if place.scheme != "https":
            raise Refusal(403, decision.rules[-1], "a secret is never sent in clear")
        try:
            self.injected = granted.injected(decision, place.host, meant)
        except HandiworkError as error:
            raise Refusal(403, decision.rules[-1], str(error)) from None
        except OSError as error:
            reason = f"the keys of secrets cannot be read: {error.strerror}"
            raise Refusal(403, decision.rules[-1], reason) from None
        self.mask = self.injected.mask.fresh()

    def _judge_upgrade(self, facts: Facts) -> None:
        """Keep an upgrade to a WebSocket; any other is left out of what is sent."""
        if facts.has_body or facts.length is not None:
            raise Refusal(400, FRAMING, "an upgrade cannot have a body")
        self.upgrade = self.method == b"GET" and facts.upgrade == b"websocket"

    def _write_head(self, path: str, place: Place, facts: Facts) -> None:
        sent_with = facts.sent_with
        if (
            sent_with is not None
            and sent_with[0] is self.injected
            and sent_with[1] == place
            and not self.upgrade
        ):
            self._head = b"%b %b HTTP/1.1%b" % (self.method, path.encode("ascii"), facts.tail)
            return
        framing = rewrite.Framing(
            length=facts.length,
            chunked=facts.chunked,
            upgrade=b"websocket" if self.upgrade else None,
        )
        try:
            self._head = rewrite.request_head(
                self.method,
                path.encode("ascii"),
                place.authority,
                self.injected.filled(self.headers),
                self.injected.headers,
                identity=self.injected is not NOTHING,
                framing=framing,
            )
        except rewrite.NotSendable as error:
            raise Refusal(400, FRAMING, str(error)) from None
        if not self.upgrade:
            facts.sent_with = (self.injected, place)
            facts.tail = self._head[self._head.index(b"\r\n") :]

    def _send(self) -> None:
        destination = self._destination
        if destination is None:
            return
        upstream = self.flow.binding.pool.take(destination, self.flow.touched)
        if upstream is None:
            self.flow.binding.spawn(self._dial(destination))
        else:
            self._carry(upstream)

    async def _dial(self, destination: Destination) -> None:
        binding = self.flow.binding
        try:
            upstream, address = await binding.dialer.connect(
                destination, lambda: Upstream(destination)
            )
        except DialError as error:
            if not self.done:
                self.refuse(error.status, GUARD if error.guard else "upstream", error.reason)
            return
        upstream.address = address
        if self.done or binding.closed:
            upstream.abort()
        elif binding.granted is not self.granted:
            upstream.abort()
            self.begin()
        elif upstream.closed:
            self.refuse(502, "upstream", "the connection ended before the answer was whole")
        else:
            self._carry(upstream)

    def _carry(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.address = upstream.address
        upstream.take(self)
        self.bytes_out += len(self._head)
        upstream.transport.write(self._head + self._taken() if self._outgoing else self._head)
        self.flow.hold_reading(unsent=not upstream.writable)
        if self.flow.write_paused:
            upstream.transport.pause_reading()

    # The answer, from the upstream.

    def informed(self, status: int) -> None:
        """Pass `100 Continue` on; other 1xx answers are dropped."""
        if status == 100:
            self._incoming.append(b"HTTP/1.1 100 Continue\r\n\r\n")

    def answered(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
        """Write the final head for the guest; say whether to go on reading."""
        fields = {name.lower(): value for name, value in headers}
        why = None
        if self.injected is not NOTHING and not _CODED.isdisjoint(fields):
            why = rewrite.unscannable(headers)
        if status == 101 and not self.upgrade:
            why = "a switch of protocols that was not asked for"
        if why is not None:
            self.refuse(502, "upstream", why)
            return False
        if status == 101 and not self.judge_again():
            self.refuse(403, LIMITS, "the policy changed")
            return False
        if not self.whole and status >= 200:
            self.keep_alive = False
        try:
            head = self._shown_head(status, reason, headers, fields)
        except rewrite.NotSendable as error:
            self.refuse(502, "upstream", f"the head of the answer is not usable: {error}")
            return False
        self.status = status
        self.tunnelling = status == 101
        self._incoming.append(head)
        if self.tunnelling:
            self.flow.tunnel_opened()
        return True

    def _shown_head(
        self,
        status: int,
        reason: bytes,
        headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes],
    ) -> bytes:
        """Return the head for the guest, made anew only when it is not that of the last answer."""
        upstream = self.upstream
        of = (status, reason, headers, self.keep_alive, self.head_only, self.injected)
        shown = upstream.shown if upstream is not None else None
        if shown is not None and shown.of == of:
            self.chunked_in = shown.chunked
        else:
            before = self.mask.hits
            framing = self._framing(status, fields)
            head = rewrite.response_head(status, reason, headers, self.mask, framing=framing)
            shown = Shown(of, head, framing.chunked, self.mask.hits - before)
            self.mask.hits = before
            if upstream is not None:
                upstream.shown = shown
        self.mask.hits += shown.hits
        if self.chunked_in and b"transfer-encoding" not in fields and upstream is not None:
            upstream.unsized = True
        return shown.head

    def _framing(self, status: int, fields: dict[bytes, bytes]) -> rewrite.Framing:
        """Say how the guest is told the end of the body, which may have none of its own."""
        if status == 101:
            return rewrite.Framing(upgrade=b"websocket")
        length = None if status == 204 else fields.get(b"content-length")
        if not self.head_only and status not in (204, 304) and length is None:
            self.chunked_in = True
        return rewrite.Framing(
            length=None if length is None else int(length),
            chunked=self.chunked_in,
            close=not self.keep_alive,
        )

    def received(self, data: bytes) -> None:
        """Take a piece of the body."""
        self.bytes_in += len(data)
        self._body.append(data)

    def _pass_on(self, data: bytes) -> None:
        if self.chunked_in and data:
            self._incoming.append(b"%x\r\n%b\r\n" % (len(data), data))
        elif data:
            self._incoming.append(data)

    def flush(self) -> None:
        """Write to the guest what was taken, masked."""
        body = self._taken_in()
        if body:
            self._pass_on(self.mask.feed(body) if self.mask else body)
        self._write()

    def _taken_in(self) -> bytes:
        body = self._body
        if not body:
            return b""
        taken = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return taken

    def _write(self) -> None:
        incoming = self._incoming
        if incoming:
            self.flow.write(incoming[0] if len(incoming) == 1 else b"".join(incoming))
            incoming.clear()

    def ended(self, *, reusable: bool) -> None:
        """End the answer; give the connection back when nothing is left on it."""
        if self.done:
            return
        body = self._taken_in()
        self._pass_on(self.mask.finish(body) if self.mask else body)
        if self.chunked_in:
            self._incoming.append(b"0\r\n\r\n")
        self._write()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            if reusable and self.whole and not upstream.closed:
                if self.flow.write_paused:
                    upstream.transport.resume_reading()
                self.flow.binding.pool.give(upstream, self.flow.loop.time())
            elif not upstream.closed:
                upstream.abort()
        self._finish(close=not self.keep_alive)

    def upgraded(self, data: bytes) -> None:
        """Pass raw bytes on to the guest, masked."""
        self.bytes_in += len(data)
        data = self.mask.feed(data) if self.mask else data
        if data:
            self.flow.write(data)

    def lost(self, reason: str) -> None:
        """Answer 502, or retry once where the request cannot have been seen; else cut the flow."""
        upstream, self.upstream = self.upstream, None
        if self.done:
            return
        if self.tunnelling:
            if self.mask:
                self.flow.write(self.mask.finish())
            self._finish(close=True)
        elif self.status:
            self.cut(reason)
        elif (
            upstream is not None
            and upstream.age
            and not self.retried
            and not self.has_body
            and not self._incoming
            and self.method in _IDEMPOTENT
            and self._destination is not None
        ):
            self.retried = True
            self.flow.binding.spawn(self._dial(self._destination))
        else:
            self.refuse(502, "upstream", reason)

    def upstream_writable(self, *, writable: bool) -> None:
        """Hold the guest while the upstream's buffer is full."""
        self.flow.hold_reading(unsent=not writable)

    # Ends that are ours.

    def refuse(self, status: int, rule: str, reason: str) -> None:
        """Answer in the upstream's place."""
        if self.done:
            return
        if self.status:
            self.cut(reason)
            return
        self._drop_upstream()
        close = not self.keep_alive or (self.has_body and not self.whole) or status in (400, 505)
        self.status = status
        self.flow.write(
            answers.refusal(status, rule, reason, close=close, head_only=self.head_only)
        )
        # What was sent is never on record as refused, however its answer came to be ours.
        blocked = status not in (502, 504) and not self.address
        self._finish(close=close, refused_by=rule if blocked else "", reason=reason)

    def cut(self, reason: str) -> None:
        """Drop the guest's connection, so that it sees that the answer is not whole."""
        if self.done:
            return
        self._drop_upstream()
        self._finish(close=True, reason=reason)
        self.flow.abort()

    def abandon(self) -> None:
        """Hear that the guest is gone."""
        if not self.done:
            self._drop_upstream()
            self._finish(close=True, reason="" if self.tunnelling else _GUEST_LEFT)

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None and not upstream.closed:
            upstream.abort()

    def _finish(self, *, close: bool, refused_by: str = "", reason: str = "") -> None:
        self.done = True
        self._outgoing.clear()
        self._record(refused_by, reason)
        self.flow.finished(self, close=close)

    def _record(self, refused_by: str, reason: str) -> None:
        decision, place = self.decision, self.place
        rules = decision.rules if decision is not None else ()
        if refused_by and refused_by not in rules:
            rules = (*rules, refused_by)
        self.flow.binding.record(
            kind="websocket" if self.tunnelling else "http",
            allowed=not refused_by,
            rules=rules,
            reason=reason,
            scheme=place.scheme if place else self.flow.origin.scheme,
            host=place.host if place else self.flow.origin.host,
            port=place.port if place else self.flow.origin.port,
            address=self.address,
            method=answers.plain(self.method.decode("latin-1")),
            path=self.path,
            status=self.status,
            bytes_out=self.bytes_out,
            bytes_in=self.bytes_in,
            duration_ms=(self.flow.binding.plane.clock() - self.started) * 1000,
            injected=self.injected.names,
            masked=self.mask.hits,
        )

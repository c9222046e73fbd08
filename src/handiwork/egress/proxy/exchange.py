"""One request and its answer: judged on its own, sent, streamed, masked, recorded."""

from typing import TYPE_CHECKING

from handiwork.egress import rewrite
from handiwork.egress.proxy import answers
from handiwork.egress.proxy.answer import Answer
from handiwork.egress.proxy.dial import GUARD, Destination, DialError, destination_of
from handiwork.egress.proxy.grants import NOTHING, Granted, Injected
from handiwork.egress.proxy.heads import (
    FRAMING,
    LIMITS,
    PLACEHOLDER,
    Facts,
    Place,
    Refusal,
    origin_form,
    path_of,
)
from handiwork.egress.proxy.hooking import Hooked
from handiwork.egress.proxy.upstream import Upstream
from handiwork.egress.sigv4 import CannotSign
from handiwork.model.errors import HandiworkError
from handiwork.model.placeholder import placeholders_in
from handiwork.model.policy import Decision, EgressRequest

if TYPE_CHECKING:
    from handiwork.egress.proxy.flow import Flow

_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})
_MAX_UNSENT = 65_536
_GUEST_LEFT = "the guest went away"


class Exchange:
    """Lives from the end of the request's head to the end of the answer; owned by its flow."""

    __slots__ = (
        "_destination",
        "_head",
        "_outgoing",
        "_outgoing_bytes",
        "_trailers",
        "address",
        "answer",
        "bytes_in",
        "bytes_out",
        "chunked_out",
        "decision",
        "done",
        "flow",
        "granted",
        "has_body",
        "head_only",
        "headers",
        "hooked",
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
        self.upstream: Upstream | None = None
        self.answer: Answer | None = None
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
        self.hooked: Hooked | None = None
        self._head = b""
        self._destination: Destination | None = None
        self._trailers: rewrite.Headers = ()
        self._outgoing: list[bytes] = []
        self._outgoing_bytes = 0

    # The request, from the guest.

    def begin(self) -> None:
        """Judge the request by the grant as it is now, and send it or answer it.

        A request whose grant changed while it waited begins again, with nothing of the old one.
        """
        self.started = self.flow.binding.plane.clock()
        self.injected, self.mask = NOTHING, NOTHING.mask
        if self.hooked is not None:
            self.hooked.reset()
        self.proceed()

    def proceed(self) -> None:
        """Judge the request as it is now, and send it, answer it, or wait for hooks."""
        self._destination = None
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
        if self.hooked is not None:
            self.hooked.body_came(self._outgoing_bytes)

    def completed(self, trailers: rewrite.Headers = ()) -> None:
        """Hear that the request is whole, and what followed its body."""
        self.whole = True
        if trailers and not self.done:
            self._take_trailers(trailers)
        if not self.done and (self.chunked_out or self.request is None):
            self._outgoing.append(b"")
        if self.hooked is not None:
            self.hooked.request_whole()

    def push(self) -> None:
        """Send on what was taken of the body, or hold the guest while there is nowhere to."""
        if not self._outgoing or self.done:
            return
        if self.upstream is None:
            most = _MAX_UNSENT if self.hooked is None else self.hooked.most_unsent(_MAX_UNSENT)
            if self._outgoing_bytes > most:
                self.flow.hold_reading(unsent=True)
            return
        self.upstream.transport.write(self._taken())

    def _taken(self) -> bytes:
        """Return what was taken of the body, in the framing that the head tells.

        Framed only here: a body can come before its request is judged. An empty piece is the end.
        """
        pieces = self._outgoing
        if self.chunked_out:
            pieces = [
                b"%x\r\n%b\r\n" % (len(piece), piece) if piece else self._last_chunk()
                for piece in pieces
            ]
        taken = b"".join(pieces)
        self._outgoing.clear()
        self._outgoing_bytes = 0
        return taken

    def _take_trailers(self, trailers: rewrite.Headers) -> None:
        """Keep the trailers that may be sent; the request is refused over those that may not leave."""
        try:
            self._trailers = rewrite.trailers(trailers)
            self._check_trailers()
        except rewrite.NotSendable as error:
            self.refuse(400, FRAMING, str(error))
        except Refusal as refusal:
            self.refuse(refusal.status, refusal.rule, refusal.reason)

    def _check_trailers(self) -> None:
        told = b"\n".join([b"%b\n%b" % field for field in self._trailers])
        if self.granted is not None and self.granted.foreign(placeholders_in(told)):
            raise Refusal(403, PLACEHOLDER, "the request carries a placeholder of another session")

    def _last_chunk(self) -> bytes:
        return b"0\r\n%b\r\n" % rewrite.trailer_lines(
            self._trailers, self.injected.written.on_fields([])
        )

    def waiting_body(self) -> bytes:
        """Return what was taken of the body and not sent."""
        return b"".join(self._outgoing)

    def put_body(self, body: bytes, *, chunked: bool) -> None:
        """Have this, whole, in the place of what was taken of the body."""
        self.bytes_out += len(body) - self._outgoing_bytes
        self._outgoing = [piece for piece in (body,) if piece] + ([b""] if chunked else [])
        self._outgoing_bytes = len(body)

    def tunnel(self, data: bytes) -> None:
        """Pass raw bytes on to the upstream."""
        self.bytes_out += len(data)
        if self.upstream is not None and self.answer is not None and self.answer.may_send(data):
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
        hooked = self.hooked
        moved = hooked.place if hooked is not None else None
        self.place = place = moved or self.flow.place(self.target, facts.host)
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
        if self._trailers:
            self._check_trailers()
        if not decision.allowed:
            raise Refusal(403, decision.rules[-1], decision.reason)
        if binding.requests > binding.settings.max_requests:
            raise Refusal(503, LIMITS, "too many requests of this sandbox are under way")
        if (decision.hooks or hooked is not None) and self._waits(decision):
            return
        meant = self._meant(granted, facts, place)
        if decision.injections or meant or (hooked is not None and hooked.told):
            self._open_secrets(granted, decision, place, meant)
        self._write_head(self.injected.written.on_target(path, query), place, facts)
        self._destination = destination_of(self.request, decision)

    def _waits(self, decision: Decision) -> bool:
        """Say whether hooks look at the request now; they have it go on, or refuse it."""
        if self.hooked is None:
            self.hooked = Hooked(self)
        return self.hooked.waits(decision)

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
            told = self.hooked.told if self.hooked is not None else ()
            self.injected = granted.injected(decision, place.host, meant, told)
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
            and self.hooked is None
        ):
            self._head = b"%b %b HTTP/1.1%b" % (self.method, path.encode("ascii"), facts.tail)
            return
        framing = rewrite.Framing(
            length=facts.length,
            chunked=facts.chunked,
            upgrade=b"websocket" if self.upgrade else None,
            trailers=facts.trailers,
        )
        fields = self.injected.filled(self.headers)
        ours = self._ours(fields, path, place, facts)
        try:
            self._head = rewrite.request_head(
                self.method,
                path.encode("ascii"),
                place.authority,
                fields,
                ours,
                identity=self.injected is not NOTHING or self._answer_is_read(),
                framing=framing,
            )
        except rewrite.NotSendable as error:
            raise Refusal(400, FRAMING, str(error)) from None
        if not self.upgrade and self.hooked is None and self.injected.written.signer is None:
            facts.sent_with = (self.injected, place)
            facts.tail = self._head[self._head.index(b"\r\n") :]

    def _ours(
        self, fields: list[tuple[bytes, bytes]], path: str, place: Place, facts: Facts
    ) -> tuple[tuple[bytes, bytes], ...]:
        """Return the headers that are set, signed last where a rule says so."""
        written = self.injected.written
        ours = written.on_fields(fields)
        if written.signer is None:
            return ours
        try:
            return ours + written.signer.sign(
                self.method,
                path,
                place.authority,
                [*fields, *ours],
                has_body=facts.has_body,
                now=self.flow.binding.plane.now(),
            )
        except CannotSign as error:
            rule = self.decision.rules[-1] if self.decision else FRAMING
            raise Refusal(403, rule, f"cannot be signed: {error}") from None

    def _answer_is_read(self) -> bool:
        return self.hooked is not None and self.hooked.reads_answers

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
        hooked = self.hooked
        answer = Answer(self, upstream) if hooked is None else hooked.answer(upstream)
        self.answer = answer
        upstream.take(answer)
        self.bytes_out += len(self._head)
        upstream.transport.write(self._head + self._taken() if self._outgoing else self._head)
        self.flow.hold_reading(unsent=not upstream.writable)
        if self.flow.write_paused:
            upstream.transport.pause_reading()

    # What comes of the answer.

    def retry(self, upstream: Upstream) -> bool:
        """Send the request once more where it cannot have been seen; say whether so."""
        if (
            not upstream.age
            or self.retried
            or self.has_body
            or self.method not in _IDEMPOTENT
            or self._destination is None
        ):
            return False
        self.retried = True
        self.flow.binding.spawn(self._dial(self._destination))
        return True

    def answered_whole(self, *, reusable: bool) -> None:
        """Give the connection back when nothing is left on it: the answer came to its end."""
        upstream, self.upstream = self.upstream, None
        if upstream is None or upstream.closed:
            return
        if reusable and self.whole:
            if self.flow.write_paused or (self.answer is not None and self.answer.holds):
                upstream.transport.resume_reading()
            self.flow.binding.pool.give(upstream, self.flow.loop.time())
        else:
            upstream.abort()

    def passed_on(self, reason: str = "", *, close: bool | None = None) -> None:
        """Hear that the guest was sent all of the answer."""
        self._finish(close=not self.keep_alive if close is None else close, reason=reason)

    def write_whole(self, status: int, answer: bytes, *, close: bool, reason: str) -> None:
        """End with an answer that a hook made, whole."""
        self._drop_upstream()
        self.status = status
        self.flow.write(answer)
        self._finish(close=close, reason=reason)

    def guest_reads(self) -> None:
        """Let more of the answer come: the guest took what was written."""
        if self.answer is not None:
            self.answer.go_on()

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
        if self.hooked is not None:
            self.hooked.finished()
        if self.answer is not None:
            self.answer.close()
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

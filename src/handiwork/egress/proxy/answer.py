"""The half of an exchange that comes from the upstream: read, decoded, masked, framed, written.

Decoding gives more than it takes. It goes on only while the guest reads, and never for long at
once; the upstream is held until all that it sent has been passed on.
"""

from typing import TYPE_CHECKING

from handiwork.egress import rewrite
from handiwork.egress.decoding import DecodeError, Decoder
from handiwork.egress.proxy.grants import NOTHING
from handiwork.egress.proxy.heads import LIMITS, Shown
from handiwork.egress.websocket import Frames, MaskedFrames, WebSocketError

if TYPE_CHECKING:
    from handiwork.egress.proxy.exchange import Exchange
    from handiwork.egress.proxy.upstream import Upstream

MAX_DECODING_BYTES = 256 << 20  # what decoders of one binding may take together
TURN_BYTES = 1 << 20
_CODED = frozenset({b"content-encoding", b"transfer-encoding", b"sec-websocket-extensions"})
_NO_BODY = (101, 204, 304)


class Answer:
    """Hears of one connection what answers one exchange; made when the request is sent."""

    __slots__ = (
        "_body",
        "_decoder",
        "_ending",
        "_exchange",
        "_frames",
        "_guest_frames",
        "_incoming",
        "_pending",
        "_trailers",
        "_upstream",
        "chunked",
        "head_only",
        "holds",
    )

    def __init__(self, exchange: "Exchange", upstream: "Upstream") -> None:
        self._exchange = exchange
        self._upstream = upstream
        self.head_only = exchange.head_only
        self.chunked = False
        self.holds = False
        self._incoming: list[bytes] = []
        self._body: list[bytes] = []
        self._trailers = b""
        self._decoder: Decoder | None = None
        self._pending = self._ending = False
        self._frames: MaskedFrames | None = None
        self._guest_frames: Frames | None = None

    # What the connection tells.

    def informed(self, status: int) -> None:
        """Pass `100 Continue` on; other 1xx answers are dropped."""
        if status == 100:
            self._incoming.append(b"HTTP/1.1 100 Continue\r\n\r\n")

    def answered(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
        """Write the final head for the guest; say whether to go on reading."""
        exchange = self._exchange
        fields = {name.lower(): value for name, value in headers}
        why = None
        if exchange.injected is not NOTHING:
            if not _CODED.isdisjoint(fields):
                why = rewrite.unscannable(headers)
            if status == 206:
                why = "a part of a body, although no range was asked for"
        if status == 101 and not exchange.upgrade:
            why = "a switch of protocols that was not asked for"
        if why is not None:
            exchange.refuse(502, "upstream", why)
            return False
        if status == 101 and not exchange.judge_again():
            exchange.refuse(403, LIMITS, "the policy changed")
            return False
        if not exchange.whole and status >= 200:
            exchange.keep_alive = False
        try:
            shown = self._shown(status, reason, headers, fields)
        except rewrite.NotSendable as error:
            exchange.refuse(502, "upstream", f"the head of the answer is not usable: {error}")
            return False
        return self._begin(status, shown)

    def received(self, data: bytes) -> None:
        """Take a piece of the body."""
        self._exchange.bytes_in += len(data)
        self._body.append(data)

    def flush(self) -> None:
        """Write to the guest what was taken, masked."""
        body = self._taken_in()
        if body and self._decoder is not None:
            self._decoder.feed(body)
            self._decode(self._decoder)
            return
        if body:
            mask = self._exchange.mask
            self._pass_on(mask.feed(body) if mask else body)
        self._write()

    def trailed(self, trailers: rewrite.Headers) -> None:
        """Take what follows the body, masked."""
        if not self.chunked:
            return
        try:
            kept = rewrite.trailers(trailers)
        except rewrite.NotSendable as error:
            self._exchange.cut(f"the trailers of the answer are not usable: {error}")
            return
        self._trailers = self._exchange.mask.apply(rewrite.trailer_lines(kept))

    def ended(self, *, reusable: bool) -> None:
        """Pass on the rest; give the connection back when nothing is left on it."""
        exchange = self._exchange
        if exchange.done:
            return
        body = self._taken_in()
        if self._decoder is not None:
            self._ending = True
            self._decoder.feed(body)
            exchange.answered_whole(reusable=reusable)
            self._decode(self._decoder)
            return
        self._end(body)
        exchange.answered_whole(reusable=reusable)
        exchange.passed_on()

    def upgraded(self, data: bytes) -> None:
        """Pass raw bytes on to the guest, masked frame by frame where there is a secret."""
        exchange = self._exchange
        exchange.bytes_in += len(data)
        if self._frames is not None:
            try:
                data = self._frames.feed(data)
            except WebSocketError as error:
                exchange.cut(f"the upstream: {error}")
                return
        if data:
            exchange.flow.write(data)

    def lost(self, reason: str) -> None:
        """Answer 502, or retry where the request cannot have been seen; else cut the flow."""
        exchange = self._exchange
        if exchange.done:
            return
        exchange.upstream = None
        if exchange.tunnelling:
            if self._frames is not None:
                exchange.flow.write(self._frames.finish())
            exchange.passed_on(close=True)
        elif exchange.status:
            exchange.cut(reason)
        elif self._incoming or not exchange.retry(self._upstream):
            exchange.refuse(502, "upstream", reason)

    def upstream_writable(self, *, writable: bool) -> None:
        """Hold the guest while the upstream's buffer is full."""
        self._exchange.flow.hold_reading(unsent=not writable)

    # What the exchange asks.

    def may_send(self, data: bytes) -> bool:
        """Say whether a tunnel may carry these bytes of the guest; it ends where not."""
        if self._guest_frames is not None:
            try:
                for _ in self._guest_frames.feed(data):
                    pass
            except WebSocketError as error:
                self._exchange.cut(f"the guest: {error}")
                return False
        return True

    def go_on(self) -> None:
        """Pass on what waits, and let more come."""
        exchange = self._exchange
        if exchange.done:
            return
        if self._pending and self._decoder is not None:
            self._decode(self._decoder)
        elif exchange.upstream is not None:
            exchange.upstream.transport.resume_reading()

    def close(self) -> None:
        """Let go of what decoding took."""
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            self._exchange.flow.binding.decoding -= decoder.memory

    # The head.

    def _begin(self, status: int, shown: Shown) -> bool:
        exchange = self._exchange
        if shown.coding and self.chunked and not self._may_decode(shown.coding):
            exchange.refuse(503, LIMITS, "too many compressed answers at once")
            return False
        exchange.status = status
        self._incoming.append(shown.head)
        if status == 101:
            exchange.tunnelling = True
            if exchange.mask:
                self._frames = MaskedFrames(exchange.mask)
                self._guest_frames = Frames(masked=True)
            exchange.flow.tunnel_opened()
        return True

    def _may_decode(self, coding: bytes) -> bool:
        binding, decoder = self._exchange.flow.binding, Decoder(coding)
        if binding.decoding + decoder.memory > MAX_DECODING_BYTES:
            return False
        binding.decoding += decoder.memory
        self._decoder = decoder
        return True

    def _shown(
        self,
        status: int,
        reason: bytes,
        headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes],
    ) -> Shown:
        """Return the head for the guest, made anew only when it is not that of the last answer."""
        exchange, upstream = self._exchange, self._upstream
        mask = exchange.mask
        of = (status, reason, headers, exchange.keep_alive, exchange.head_only, exchange.injected)
        shown = upstream.shown
        if shown is None or shown.of != of:
            before = mask.hits
            secret = exchange.injected is not NOTHING
            coding = rewrite.coding(headers) if secret and b"content-encoding" in fields else b""
            framing = self._framing(status, fields, sized=not coding)
            head = rewrite.response_head(
                status, reason, headers, mask, framing=framing, decoded=bool(coding)
            )
            shown = Shown(of, head, framing.chunked, mask.hits - before, coding)
            mask.hits = before
            upstream.shown = shown
        self.chunked = shown.chunked
        mask.hits += shown.hits
        if shown.chunked and fields.keys().isdisjoint((b"transfer-encoding", b"content-length")):
            upstream.unsized = True
        return shown

    def _framing(self, status: int, fields: dict[bytes, bytes], *, sized: bool) -> rewrite.Framing:
        """Say how the guest is told the end of the body, which may have none of its own."""
        if status == 101:
            return rewrite.Framing(upgrade=b"websocket")
        length = fields.get(b"content-length") if sized and status != 204 else None
        return rewrite.Framing(
            length=None if length is None else int(length),
            chunked=length is None and not self.head_only and status not in _NO_BODY,
            close=not self._exchange.keep_alive,
        )

    # The body.

    def _decode(self, decoder: Decoder) -> None:
        """Pass on what comes out, while the guest reads and this is not long for one turn."""
        exchange, left = self._exchange, TURN_BYTES
        self._pending = True
        try:
            while self._pending and left > 0 and not exchange.flow.write_paused:
                piece = decoder.read()
                left -= len(piece)
                self._pending = bool(piece)
                if piece:
                    self._pass_on(exchange.mask.feed(piece))
                self._write()
            if self._ending and not self._pending:
                decoder.finish()
        except DecodeError as error:
            exchange.cut(f"the compressed answer is not usable: {error}")
            return
        self._write()
        self._after_turn()

    def _after_turn(self) -> None:
        exchange = self._exchange
        upstream = exchange.upstream
        if self._pending:
            if upstream is not None and not upstream.closed:
                upstream.transport.pause_reading()
                self.holds = True
            if not exchange.flow.write_paused:
                exchange.flow.loop.call_soon(self.go_on)
        elif self._ending:
            self._end(b"")
            exchange.passed_on()
        elif self.holds and upstream is not None and not exchange.flow.write_paused:
            upstream.transport.resume_reading()
            self.holds = False

    def _end(self, body: bytes) -> None:
        mask = self._exchange.mask
        self._pass_on(mask.finish(body) if mask else body)
        if self.chunked:
            self._incoming.append(b"0\r\n%b\r\n" % self._trailers)
        self._write()

    def _taken_in(self) -> bytes:
        body = self._body
        if not body:
            return b""
        taken = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return taken

    def _pass_on(self, data: bytes) -> None:
        if self.chunked and data:
            self._incoming.append(b"%x\r\n%b\r\n" % (len(data), data))
        elif data:
            self._incoming.append(data)

    def _write(self) -> None:
        incoming = self._incoming
        if incoming:
            self._exchange.flow.write(incoming[0] if len(incoming) == 1 else b"".join(incoming))
            incoming.clear()

"""An answer that hooks look at before the guest does: its head, or all of it, once it is masked."""

from http import HTTPStatus
from typing import TYPE_CHECKING

from handiwork.egress import rewrite
from handiwork.egress.decoding import DecodeError, Decoder, decodable
from handiwork.egress.hooks.wire import Answered, ResponseForm, Shown, checked_head
from handiwork.egress.mask import Mask
from handiwork.egress.proxy.answer import Answer
from handiwork.egress.proxy.grants import NOTHING
from handiwork.egress.proxy.hook_link import HookFailed
from handiwork.model.policy import HookUse

if TYPE_CHECKING:
    from handiwork.egress.proxy.exchange import Exchange
    from handiwork.egress.proxy.hooking import Hooked
    from handiwork.egress.proxy.upstream import Upstream

MAX_PASSING_BYTES = 1 << 20
"""Of a body that streams by and waits while hooks look at the head."""
FRAMING_NAMES = frozenset({"content-length", "host", "transfer-encoding"})
_OF_THE_BODY = (b"content-length", b"transfer-encoding", b"trailer")
_BODILESS = (204, 304)
_PHRASES = {one.value: one.phrase.encode() for one in HTTPStatus}
_Fields = list[tuple[bytes, bytes]]


class HeldAnswer(Answer):
    """Holds an answer back until `hooks`, one after another, had a look; then it goes on as any other.

    With a rule that lets one of them read bodies the answer is held whole, else its head alone.
    """

    __slots__ = ("_asked", "_ended", "_head", "_hooked", "_hooks", "_reusable", "_room", "_told")

    def __init__(
        self, exchange: "Exchange", upstream: "Upstream", hooked: "Hooked", hooks: list[HookUse]
    ) -> None:
        super().__init__(exchange, upstream)
        self._hooked = hooked
        self._hooks = hooks
        self._room = max(use.body_bytes for use in hooks)
        self._head: tuple[int, bytes, _Fields] | None = None
        self._told: rewrite.Headers = ()
        self._asked = self._ended = self._reusable = False

    def answered(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
        """Keep the head back; say whether to go on reading."""
        exchange = self._exchange
        if status == 101:
            return super().answered(status, reason, headers)
        why = rewrite.unscannable(headers) if exchange.injected is not NOTHING else None
        if why is not None:
            exchange.refuse(502, "upstream", why)
            return False
        self._head = (status, reason, headers)
        names = {name.lower() for name, _ in headers}
        bodiless = self.head_only or status in _BODILESS
        if not bodiless and names.isdisjoint((b"content-length", b"transfer-encoding")):
            self._upstream.unsized = True
        if not self._room:
            self._hold()
            self._ask()
        elif not exchange.flow.binding.plane.hooks.reserve(
            self._hooked, exchange.flow.binding.identity.id
        ):
            self._hooked.refuse(self._hooks[0], "too many bodies are held for hooks")
            return False
        return True

    def flush(self) -> None:
        """Keep what came, within bounds."""
        if self._head is None:
            super().flush()
        else:
            self._bound()

    def trailed(self, trailers: rewrite.Headers) -> None:
        """Keep what followed the body."""
        if self._head is None:
            super().trailed(trailers)
        else:
            self._told = trailers

    def ended(self, *, reusable: bool) -> None:
        """Note that it is whole."""
        exchange = self._exchange
        if self._head is None:
            super().ended(reusable=reusable)
            return
        self._bound()
        if exchange.done:
            return
        self._ended, self._reusable = True, reusable
        if self._room:
            exchange.answered_whole(reusable=reusable)
            self._ask()

    def lost(self, reason: str) -> None:
        """Answer 502 for what was held: it has been sent, and is not sent again."""
        exchange = self._exchange
        if self._head is None:
            super().lost(reason)
        elif not exchange.done:
            exchange.upstream = None
            exchange.refuse(502, "upstream", reason)

    def go_on(self) -> None:
        """Let more come, once hooks had their look."""
        if self._head is None:
            super().go_on()

    def _hold(self) -> None:
        upstream = self._exchange.upstream
        if upstream is not None and not upstream.closed:
            upstream.transport.pause_reading()
            self.holds = True

    def _bound(self) -> None:
        exchange, came = self._exchange, self._exchange.bytes_in
        if exchange.done:
            return
        if self._room and came > self._room:
            use = max(self._hooks, key=lambda one: one.body_bytes)
            self._hooked.refuse(use, f"the answer is over the {self._room} bytes that it reads")
        elif not self._room and came > MAX_PASSING_BYTES:
            exchange.refuse(502, "upstream", "the answer came too fast for a hook")
        elif not self._room:
            self._hold()

    def _ask(self) -> None:
        if not self._asked and self._head is not None:
            self._asked = True
            self._exchange.flow.binding.spawn(self._shown_to_hooks(*self._head))

    async def _shown_to_hooks(self, status: int, reason: bytes, headers: _Fields) -> None:
        exchange, use = self._exchange, self._hooks[0]
        try:
            form = self._form(status, headers)
            for use in self._hooks:
                result = await self._hooked.ask(use, self._for(use, form))
                if exchange.done:
                    return
                if isinstance(result, Answered):
                    self._write_form(result.response)
                    return
                if isinstance(result, Shown):
                    form = self._left(form, result.response)
            check_answer(form)
            if form.body is None:
                self._pass(status, reason, headers, form)
            else:
                self._write_form(form)
        except Exception as error:  # noqa: BLE001  whatever it was, the answer is not shown
            self._hooked.failed(use, error)

    def _form(self, status: int, headers: _Fields) -> ResponseForm:
        """Return the answer as a hook may see it: decoded and masked."""
        mask = self._exchange.mask
        coding = rewrite.coding(headers)
        body = None
        if self._room:
            raw = self._taken_in()
            coded = bool(raw) and decodable(coding)
            body = mask.finish(self._decoded(coding, raw) if coded else raw)
            if coded:
                headers = [pair for pair in headers if pair[0].lower() != b"content-encoding"]
        kept = rewrite.travelling(headers)
        return ResponseForm(
            status=status,
            headers=text([(name.lower(), mask.apply(value)) for name, value in kept]),
            body=body,
        )

    def _decoded(self, coding: bytes, raw: bytes) -> bytes:
        decoder, pieces, size = Decoder(coding), [], 0
        try:
            decoder.feed(raw)
            while piece := decoder.read():
                pieces.append(piece)
                size += len(piece)
                if size > self._room:
                    raise HookFailed(f"the answer is over the {self._room} bytes that it reads")
            decoder.finish()
        except DecodeError as error:
            raise HookFailed(f"the compressed answer is not usable: {error}") from None
        return b"".join(pieces)

    def _for(self, use: HookUse, form: ResponseForm) -> ResponseForm:
        body = form.body if use.body_bytes else None
        if body is not None and len(body) > use.body_bytes:
            raise HookFailed(f"the answer is over the {use.body_bytes} bytes that it reads")
        return ResponseForm(status=form.status, headers=form.headers, body=body)

    def _left(self, before: ResponseForm, after: ResponseForm) -> ResponseForm:
        body = before.body if after.body is None else after.body
        return ResponseForm(status=after.status, headers=after.headers, body=body)

    def _pass(self, status: int, reason: bytes, headers: _Fields, form: ResponseForm) -> None:
        """Let the answer go on, under the head that hooks left."""
        if (form.status in _BODILESS) != (status in _BODILESS):
            raise HookFailed("it changed the status to one with a body, or without")
        exchange = self._exchange
        fields = octets([pair for pair in form.headers if pair[0].lower() not in FRAMING_NAMES])
        fields += [pair for pair in headers if pair[0].lower() in _OF_THE_BODY]
        self._head = None
        if not super().answered(form.status, reason if form.status == status else b"", fields):
            return
        if self._told:
            super().trailed(self._told)
        if self._ended:
            super().ended(reusable=self._reusable)
            return
        super().flush()
        if not exchange.done and not exchange.flow.write_paused:
            super().go_on()

    def _write_form(self, form: ResponseForm) -> None:
        """Write an answer that is whole here."""
        exchange = self._exchange
        length: int | None = len(form.body or b"")
        if exchange.head_only and self._head is not None:
            fields = {name.lower(): value for name, value in self._head[2]}
            told = fields.get(b"content-length")
            length = int(told) if told is not None else None
        self._head = None
        write_whole(exchange, form, exchange.mask.fresh(), length=length)


def write_whole(
    exchange: "Exchange",
    form: ResponseForm,
    mask: Mask,
    *,
    length: int | None,
    reason: str = "",
) -> None:
    """Write an answer that a hook made, masked, and end the exchange; HookFailed, NotSendable."""
    check_answer(form)
    body = mask.apply(form.body or b"")
    bodiless = form.status in _BODILESS
    headers = octets([pair for pair in form.headers if pair[0].lower() not in FRAMING_NAMES])
    close = not exchange.keep_alive or (exchange.has_body and not exchange.whole)
    framing = rewrite.Framing(length=None if bodiless else length, close=close)
    phrase = _PHRASES.get(form.status, b"")
    head = rewrite.response_head(form.status, phrase, headers, mask, framing=framing)
    answer = head if bodiless or exchange.head_only else head + body
    exchange.write_whole(form.status, answer, close=close, reason=reason)


def check_answer(form: ResponseForm) -> None:
    """Raise HookFailed for an answer that cannot be one."""
    wrong = checked_head(form.headers)
    if not 200 <= form.status <= 599:
        wrong = "a status that is not 200 to 599"
    if wrong:
        raise HookFailed(f"it made {wrong}")


def text(fields: _Fields) -> list[tuple[str, str]]:
    """Return fields as hooks see them."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def octets(pairs: list[tuple[str, str]]) -> _Fields:
    """Return fields as they are sent."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]

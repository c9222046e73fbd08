"""What hooks do with one exchange: on_request before anything is injected, on_response once masked.

Made only for a request whose decision names hooks. A request that a hook changed is judged again;
hooks that only the new decision names run too, each once. An error of any kind refuses.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from handiwork.egress import rewrite
from handiwork.egress.hooks.wire import (
    Answered,
    Call,
    Caller,
    Passed,
    RequestForm,
    ResponseForm,
    Result,
    checked_head,
)
from handiwork.egress.mask import Mask
from handiwork.egress.proxy.answer import Answer
from handiwork.egress.proxy.heads import Place, Refusal, origin_form, path_of, place_of
from handiwork.egress.proxy.held_answer import (
    FRAMING_NAMES,
    HeldAnswer,
    octets,
    text,
    write_whole,
)
from handiwork.egress.proxy.hook_link import HookDenied, HookFailed
from handiwork.model.errors import HandiworkError
from handiwork.model.hook import MAX_HOOK_BODY_BYTES, Stage
from handiwork.model.policy import Decision, HookUse, Scheme

if TYPE_CHECKING:
    from handiwork.egress.proxy.exchange import Exchange
    from handiwork.egress.proxy.upstream import Upstream

_OF_THE_BODY = (b"content-length", b"te", b"trailer", b"transfer-encoding")
_SCHEMES: dict[str, Scheme] = {"https": "https", "http": "http"}
_Fields = list[tuple[bytes, bytes]]


class Hooked:
    """Belongs to one exchange, which tells it what comes and is told how to go on."""

    def __init__(self, exchange: "Exchange") -> None:
        self.exchange = exchange
        self.place: Place | None = None
        self.room = 0
        self._original = (exchange.headers, exchange.target)
        self._body: bytes | None = None
        self._pending: list[HookUse] = []
        self._collecting = False
        self._ran: dict[str, HookUse] = {}
        self._stages: dict[str, tuple[Stage, ...]] = {}
        self._values: dict[str, str] = {}

    # The request.

    @property
    def told(self) -> tuple[str, ...]:
        """Names of the secrets that hooks were given."""
        return tuple(sorted(self._values))

    @property
    def reads_answers(self) -> bool:
        """Say whether a hook reads the answer's body: it is asked for whole and not compressed."""
        return any(use.body_bytes for use in self._responders())

    def reset(self) -> None:
        """Begin again with what the guest sent, and nothing of what hooks made of it."""
        exchange = self.exchange
        exchange.headers, exchange.target = self._original
        self.place = None
        self._ran.clear()
        self._values.clear()
        if self._body is not None:
            chunked = any(name == b"transfer-encoding" for name, _ in exchange.headers)
            exchange.put_body(self._body, chunked=chunked)

    def waits(self, decision: Decision) -> bool:
        """Say whether hooks have to look at the request before it goes on; Refusal."""
        self._pending = [use for use in decision.hooks if use.name not in self._ran]
        if not self._pending:
            self._refuse_upgrade()
            return False
        exchange, binding = self.exchange, self.exchange.flow.binding
        if binding.identity.kind == "hook":
            raise _refusal(self._pending[0], "requests of hooks themselves pass no hook")
        self.room = max(self._reads(use) for use in self._pending)
        if not (self.room and exchange.has_body):
            self.room = 0
            self._begin()
        elif exchange.whole:
            self._begin()
        else:
            self._collect()
        return True

    def most_unsent(self, usual: int) -> int:
        """Return how much of the body may wait here."""
        return self.room if self._collecting else usual

    def body_came(self, size: int) -> None:
        """Refuse a body that is too large for the hooks that want to read it."""
        if self._collecting and size > self.room:
            use = max(self._pending, key=lambda one: one.body_bytes)
            self.refuse(use, f"the body is over the {self.room} bytes that it reads")

    def request_whole(self) -> None:
        """Go on with the hooks when the body that they want to read is there."""
        if self._collecting and not self.exchange.done:
            self._collecting = False
            self._begin()

    def finished(self) -> None:
        """Let go of what was held."""
        self._collecting = False
        self._body = None
        self._values.clear()
        self.exchange.flow.binding.plane.hooks.release(self)

    def _reads(self, use: HookUse) -> int:
        stages = self.exchange.flow.binding.plane.hooks.known(use.name)
        return use.body_bytes if stages is None or "request" in stages else 0

    def _refuse_upgrade(self) -> None:
        if self.exchange.upgrade and self.reads_answers:
            use = self._responders()[0]
            raise _refusal(use, "it reads answers, and a WebSocket's cannot be shown to it")

    def _collect(self) -> None:
        exchange = self.exchange
        if not exchange.flow.binding.plane.hooks.reserve(self, exchange.flow.binding.identity.id):
            raise _refusal(self._pending[0], "too many bodies are held for hooks")
        self._collecting = True
        if any(name == b"expect" for name, _ in exchange.headers):
            exchange.flow.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _begin(self) -> None:
        self.exchange.flow.binding.spawn(self._requests())

    async def _requests(self) -> None:
        exchange = self.exchange
        binding, granted = exchange.flow.binding, exchange.granted
        use = self._pending[0]
        try:
            for use in self._pending:
                result = await self._request(use)
                if exchange.done or binding.closed:
                    return
                if binding.granted is not granted:
                    exchange.begin()
                    return
                self._ran[use.name] = use
                if isinstance(result, Answered):
                    self._answer(use, result.response)
                    return
                if isinstance(result, Passed):
                    self._take_over(use, result.request)
            exchange.proceed()
        except Exception as error:  # noqa: BLE001  whatever it was, the request does not go on
            self.failed(use, error)

    async def _request(self, use: HookUse) -> Result | None:
        """Run on_request; None where the hook has none."""
        link = self.exchange.flow.binding.plane.hooks
        self._stages[use.name] = await link.stages(use.name)
        values = self._granted(use)
        self._values.update(values)
        if "request" not in self._stages[use.name]:
            return None
        form = self._form(use)
        return await link.call(
            self.exchange.flow.binding.identity.id,
            self._call(use, "request", form, None, values),
        )

    def _granted(self, use: HookUse) -> dict[str, str]:
        exchange = self.exchange
        place, granted = exchange.place, exchange.granted
        if not use.secrets or granted is None or place is None:
            return {}
        if place.scheme != "https":
            raise HookFailed("it is given secrets, and the request is in clear")
        return granted.told(use.secrets, place.host)

    def _form(self, use: HookUse | None) -> RequestForm:
        exchange = self.exchange
        path, query = path_of(origin_form(exchange.target))
        place = exchange.place
        if place is None:
            raise HookFailed("the request has no place")
        return RequestForm(
            method=exchange.method.decode("latin-1"),
            scheme=place.scheme,
            host=place.host,
            port=place.port,
            path=path,
            query=query,
            headers=text(rewrite.travelling(exchange.headers)),
            body=self._body_for(use) if use is not None else None,
        )

    def _body_for(self, use: HookUse) -> bytes | None:
        exchange = self.exchange
        if not use.body_bytes:
            return None
        if exchange.has_body and not exchange.whole:
            raise HookFailed("it changed while the request came: send it again")
        body = exchange.waiting_body() if exchange.has_body else b""
        if len(body) > use.body_bytes:
            raise HookFailed(f"the body is over the {use.body_bytes} bytes that it reads")
        if self._body is None:
            self._body = body
        return body

    def _call(
        self,
        use: HookUse,
        stage: Stage,
        request: RequestForm,
        response: ResponseForm | None,
        values: dict[str, str],
    ) -> Callable[[int], Call]:
        identity = self.exchange.flow.binding.identity
        caller = Caller(
            tenant=identity.tenant,
            agent_id=identity.agent_id,
            session_id=identity.session_id,
            sandbox_id=identity.sandbox_id,
            tool=identity.tool,
            tool_use_id=identity.tool_use_id,
        )
        return lambda number: Call(
            id=number,
            hook=use.name,
            stage=stage,
            caller=caller,
            request=request,
            response=response,
            secrets=values,
        )

    def _take_over(self, use: HookUse, form: RequestForm) -> None:
        """Put what a hook made of the request in its place; it is judged as if the guest had sent it."""
        exchange = self.exchange
        wrong = checked_head(form.headers)
        scheme = _SCHEMES.get(form.scheme)
        if wrong or scheme is None:
            raise HookFailed(f"it made {wrong or 'a scheme other than https and http'}")
        try:
            self.place = place_of(scheme, Place(scheme, form.host, form.port).authority)
            target = f"{form.path}?{form.query}" if form.query else form.path
            exchange.target = target.encode("ascii")
        except UnicodeError:
            raise HookFailed("it made a host or path that is not ASCII: encode it") from None
        if not exchange.target.startswith(b"/"):
            raise HookFailed("it made a path that does not begin with '/'")
        exchange.headers = self._headers(use, form)

    def _headers(self, use: HookUse, form: RequestForm) -> _Fields:
        """Return the fields for the next judgement, framed as the body is now."""
        exchange = self.exchange
        place = self.place
        kept = [(n.lower(), v) for n, v in form.headers if n.lower() not in FRAMING_NAMES]
        fields = [(b"host", place.authority if place else b"")]
        if use.body_bytes:
            kept = [pair for pair in kept if pair[0] != "expect"]
            body = form.body or b""
            if len(body) > MAX_HOOK_BODY_BYTES:
                raise HookFailed("it made a body that is too large")
            if body or exchange.has_body:
                fields.append((b"content-length", b"%d" % len(body)))
            exchange.put_body(body, chunked=False)
        elif form.body is not None:
            raise HookFailed("it set a body, and its rule lets it read none")
        else:
            fields += [pair for pair in exchange.headers if pair[0] in _OF_THE_BODY]
        if exchange.upgrade:
            fields.append((b"upgrade", b"websocket"))
        return fields + octets(kept)

    def _answer(self, use: HookUse, form: ResponseForm) -> None:
        """Answer in the upstream's place; secrets that hooks were given do not get out so."""
        exchange = self.exchange
        mask = Mask([value.encode() for value in self._values.values()])
        reason = f"answered by the hook {use.name}"
        write_whole(exchange, form, mask, length=len(form.body or b""), reason=reason)

    # The answer.

    def answer(self, upstream: "Upstream") -> Answer:
        """Return who hears the upstream: it holds the answer back where hooks look at it.

        The request goes now, and nothing of its body is held any more.
        """
        self._body = None
        self.exchange.flow.binding.plane.hooks.release(self)
        responders = self._responders()
        if not responders:
            return Answer(self.exchange, upstream)
        return HeldAnswer(self.exchange, upstream, self, responders[::-1])

    def _responders(self) -> list[HookUse]:
        return [use for use in self._ran.values() if "response" in self._stages[use.name]]

    async def ask(self, use: HookUse, form: ResponseForm) -> Result:
        """Run on_response on a masked answer; the request is shown as hooks left it."""
        exchange = self.exchange
        shown = exchange.mask.apply
        fields = [(name, shown(value)) for name, value in rewrite.travelling(exchange.headers)]
        request = msgspec.structs.replace(self._form(None), headers=text(fields))
        values = {name: self._values[name] for name in use.secrets if name in self._values}
        link = exchange.flow.binding.plane.hooks
        return await link.call(
            exchange.flow.binding.identity.id, self._call(use, "response", request, form, values)
        )

    def failed(self, use: HookUse, error: Exception) -> None:
        """Refuse, with what may be told; a fault of ours is logged by its kind."""
        if isinstance(error, Refusal):
            self.exchange.refuse(error.status, error.rule, error.reason)
        elif isinstance(error, HookDenied):
            self.refuse(use, str(error) or f"the hook {use.name} denies it")
        elif isinstance(error, HookFailed | HandiworkError):
            self.refuse(use, f"the hook {use.name} failed: {error}")
        else:
            if not isinstance(error, rewrite.NotSendable):
                self.exchange.flow.binding.fault("hook", error)
            self.refuse(use, f"the hook {use.name} failed: what it made cannot be sent")

    def refuse(self, use: HookUse, reason: str) -> None:
        """Refuse in the hook's name."""
        self._collecting = False
        self.exchange.refuse(403, _label(use), reason)


def _label(use: HookUse) -> str:
    return f"hook:{use.name}"


def _refusal(use: HookUse, reason: str) -> Refusal:
    return Refusal(403, _label(use), reason)

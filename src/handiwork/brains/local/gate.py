"""The door of the server: who may ask at all, before anything is routed.

Only loopback names are answered, a page of another origin is refused, the beta header is required,
and a key names its holder. Every answer carries its request's id.
"""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from handiwork.brains.local.clock import NewId
from handiwork.brains.local.errors import WireError, envelope, group_of
from handiwork.brains.local.keys import Caller, Keyring

BETA = "managed-agents-2026-04-01"
MEMORY_BETA = "agent-memory-2026-07-22"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
Headers = Iterable[tuple[bytes, bytes]]

_BETAS = {
    "agents": (BETA,),
    "environments": (BETA,),
    "memory_stores": (MEMORY_BETA, BETA),
    "sessions": (BETA,),
    "vaults": (BETA,),
}
"""The groups of routes that are there only with a beta header; one of those named is enough."""


class Gate:
    """Wraps the application."""

    def __init__(self, application: ASGIApp, keyring: Keyring, new_id: NewId) -> None:
        self._application = application
        self._keyring = keyring
        self._new_id = new_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] != ScopeType.HTTP:
            await self._application(scope, receive, send)
            return
        request_id = self._new_id("req")
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = request_id

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"request-id", request_id.encode())]
                message = {**message, "headers": headers}
            await send(message)

        headers = scope["headers"]
        try:
            check_origin(headers)
            if scope["path"] != "/healthz":
                state["caller"] = self._caller(scope["path"], headers)
        except WireError as error:
            await refuse(named, error, request_id)
            return
        await self._application(scope, receive, named)

    def _caller(self, path: str, headers: Headers) -> Caller:
        wanted = _BETAS.get(group_of(path), ())
        if wanted and not _has_beta(headers, wanted):
            raise WireError(404, f"not found: this needs the header anthropic-beta: {wanted[-1]}")
        key = _key(headers)
        caller = self._keyring.caller(key) if key else None
        if caller is None:
            raise WireError(401, "the key is missing or not valid")
        return caller


async def refuse(send: Send, error: WireError, request_id: str) -> None:
    """Answer with the error's envelope."""
    body = envelope(error, request_id)
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def check_origin(headers: Headers) -> None:
    """Refuse names that are not loopback: they come from a page that rebinds its name to us."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 or _hostname(f"//{hosts[0].decode('latin-1')}") not in LOOPBACK:
        raise WireError(403, "this server answers to loopback names only")
    for name, value in headers:
        if name == b"origin" and _hostname(value.decode("latin-1")) not in LOOPBACK:
            raise WireError(403, "this server answers no pages of other origins")


def _hostname(text: str) -> str | None:
    try:
        return urlsplit(text).hostname
    except ValueError:
        return None


def _has_beta(headers: Headers, wanted: Iterable[str]) -> bool:
    given = {
        part.strip()
        for name, value in headers
        if name == b"anthropic-beta"
        for part in value.split(b",")
    }
    return any(beta.encode() in given for beta in wanted)


def _key(headers: Headers) -> str | None:
    """Return the bearer key, or else that of x-api-key."""
    given: dict[bytes, str] = {name: value.decode("latin-1") for name, value in headers}
    scheme, _, key = given.get(b"authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key.strip():
        return key.strip()
    return given.get(b"x-api-key") or None

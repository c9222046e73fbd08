"""Who may speak to the API: checked on every request before anything else sees it.

Over the unix socket the kernel tells who calls; over TCP the admin key does. A page of another
site is kept out by `Host` (a rebound name is not ours) and `Origin` (only our own pages). One path
takes everybody: a webhook comes from the brain by whatever public name, and its signature, which
its route checks, is its proof.
"""

import hashlib
import hmac
import ipaddress
import os
from dataclasses import dataclass

from litestar.types import Scope, Send

from handiwork.api.errors import answer
from handiwork.model.wire import ErrorBody

PEER_UID = "peer_uid"
"""Where the server puts the caller's uid in the connection's state; absent over TCP."""

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json"})
SIGNED_PATH = "/webhooks"
"""Exactly this: its route believes nobody without a signature."""
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request goes no further."""

    status: int
    message: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """What a request shows of who sends it. `local_address` is where it arrived, of TCP."""

    path: str
    hosts: tuple[str, ...]
    origins: tuple[str, ...]
    authorizations: tuple[str, ...]
    peer_uid: int | None
    local_address: str


class Gate:
    """The rules; pure but for our own uid."""

    def __init__(self, admin_key_hash: bytes, configured_host: str) -> None:
        self._admin_key_hash = admin_key_hash
        self._names = LOOPBACK_NAMES | {configured_host.lower()}
        self._uids = frozenset({0, os.geteuid()})

    def check(self, caller: Caller) -> Refusal | None:
        """Return why the caller is refused, or None."""
        if caller.path == SIGNED_PATH:
            return None
        if len(caller.hosts) != 1 or not self._is_ours(caller.hosts[0], caller.local_address):
            return Refusal(403, "this Host is not served here; use the address of the settings")
        if any(not _same_origin(origin, caller.hosts[0]) for origin in caller.origins):
            return Refusal(403, "requests from pages of another Origin are refused")
        if caller.peer_uid is not None:
            if caller.peer_uid in self._uids:
                return None
            return Refusal(401, "this socket serves the user that the control plane runs as")
        if caller.path in OPEN_PATHS or self._has_key(caller.authorizations):
            return None
        return Refusal(401, "send the admin key: Authorization: Bearer KEY")

    def _is_ours(self, host: str, local_address: str) -> bool:
        name = _without_port(host.lower())
        return name in self._names or _same_address(name, local_address)

    def _has_key(self, authorizations: tuple[str, ...]) -> bool:
        if len(authorizations) != 1:
            return False
        scheme, _, key = authorizations[0].partition(" ")
        shown = hashlib.sha256(key.strip().encode()).digest()
        return hmac.compare_digest(shown, self._admin_key_hash) and scheme.lower() == "bearer"


def caller_of(scope: Scope) -> Caller:
    """Read what the gate judges from an ASGI scope."""
    headers: dict[bytes, list[str]] = {b"host": [], b"origin": [], b"authorization": []}
    for name, value in scope["headers"]:
        if name in headers:
            headers[name].append(value.decode("latin-1"))
    server = scope.get("server")
    return Caller(
        path=scope["path"],
        hosts=tuple(headers[b"host"]),
        origins=tuple(headers[b"origin"]),
        authorizations=tuple(headers[b"authorization"]),
        peer_uid=scope.get("state", {}).get(PEER_UID),
        local_address=server[0] if server and server[1] is not None else "",
    )


async def refuse(refusal: Refusal, send: Send) -> None:
    """Answer with the refusal and close: its body is not read."""
    headers = [(b"www-authenticate", b"Bearer")] if refusal.status == 401 else []
    await answer(
        refusal.status, ErrorBody(type="unauthorized", message=refusal.message), send, headers
    )


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _same_origin(origin: str, host: str) -> bool:
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _same_address(name: str, local_address: str) -> bool:
    """Say whether the name is literally the address that was called: such a name is no rebinding."""
    try:
        return ipaddress.ip_address(name.strip("[]")) == ipaddress.ip_address(local_address)
    except ValueError:
        return False

"""`fetch` of guest code: each hop is asked of the egress proxy anew, and bodies come piece by piece."""

import base64
from typing import Any, TypeVar

import msgspec

from handiwork.model.errors import ToolFailedError
from handiwork.sandboxes.isolate.exchange import Exchange
from handiwork.sandboxes.isolate.fetch_rules import REDIRECTS, Asked, checked, redirected

T = TypeVar("T")
OPEN = 64
"""So many bodies may wait to be read."""


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    body: int


class Fetcher:
    """Serves `net.*` of one run; `close` at its end. Without a socket nothing leaves."""

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._bodies: dict[int, Exchange] = {}
        self._last = 0

    async def fetch(self, argument: msgspec.Raw) -> dict[str, Any]:
        """Answer `net.fetch`: status, headers, where it ended, and the number of its body."""
        asked = checked(_decoded(argument, Asked))
        if not self._socket_path:
            raise ToolFailedError("fetch: this sandbox has no way out")
        if len(self._bodies) >= OPEN:
            raise ToolFailedError(
                f"fetch: {OPEN} answers wait to be read; read or cancel some first"
            )
        first = asked.url
        for _ in range(REDIRECTS + 1):
            exchange = await Exchange.begin(self._socket_path, asked)
            following = None
            if asked.redirect != "manual":
                following = self._following(exchange, asked)
            if following is None:
                return self._told(exchange, asked, redirected_from=first)
            exchange.close()
            asked = following
        raise ToolFailedError(f"fetch: more than {REDIRECTS} redirects")

    def _following(self, exchange: Exchange, asked: Asked) -> Asked | None:
        try:
            following = redirected(asked, exchange.status, exchange.values("location"))
        except BaseException:
            exchange.close()
            raise
        if following is not None and asked.redirect == "error":
            exchange.close()
            raise ToolFailedError("fetch: it is redirected, which this request forbids")
        return following

    def _told(self, exchange: Exchange, asked: Asked, *, redirected_from: str) -> dict[str, Any]:
        self._last += 1
        self._bodies[self._last] = exchange
        return {
            "status": exchange.status,
            "statusText": exchange.reason,
            "headers": exchange.headers,
            "url": asked.url,
            "redirected": asked.url != redirected_from,
            "body": self._last,
        }

    async def read(self, argument: msgspec.Raw) -> str | None:
        """Answer `net.read`: the next piece in base64, None at the end."""
        number = _decoded(argument, _Body).body
        exchange = self._bodies.get(number)
        if exchange is None:
            return None
        try:
            piece = await exchange.read()
        except BaseException:
            self._drop(number)
            raise
        if piece is None:
            self._drop(number)
            return None
        return base64.b64encode(piece).decode()

    async def stop(self, argument: msgspec.Raw) -> None:
        """Answer `net.close`: nobody reads the rest."""
        self._drop(_decoded(argument, _Body).body)

    def close(self) -> None:
        """Let go of what nobody read."""
        for number in list(self._bodies):
            self._drop(number)

    def _drop(self, number: int) -> None:
        exchange = self._bodies.pop(number, None)
        if exchange is not None:
            exchange.close()


def _decoded(argument: msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(argument, type=kind)
    except msgspec.DecodeError as error:
        raise ToolFailedError(f"fetch: {error}") from None

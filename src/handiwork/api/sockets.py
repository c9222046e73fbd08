"""WebSockets that live: one message at a time each way, so that nothing piles up here.

The server stops reading while a message is not taken, and `send` waits while the caller does not
read. The last message tells how it ended, as a line of a streamed command does.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from litestar.connection import WebSocket

from handiwork.api.errors import told
from handiwork.api.streams import CallerLeft, Stopped, first, stopped
from handiwork.model.errors import ConfigError, HandiworkError
from handiwork.model.wire import ExecFrame

T = TypeVar("T")

AnySocket = WebSocket[Any, Any, Any]


class LiveSocket:
    """One accepted WebSocket."""

    def __init__(self, socket: AnySocket) -> None:
        self._socket = socket

    async def receive(self) -> bytes | str:
        """Return the next message; CallerLeft when there is none any more."""
        message: Any = await self._socket.receive()
        if message["type"] != "websocket.receive":
            raise CallerLeft
        data = message.get("bytes")
        found: bytes | str = message["text"] if data is None else data
        return found

    async def send(self, data: bytes) -> None:
        """Send bytes; waits while the caller does not read."""
        await self._send({"type": "websocket.send", "bytes": data, "text": None})

    async def tell(self, frame: msgspec.Struct) -> None:
        """Send a frame as text."""
        text = msgspec.json.encode(frame).decode()
        await self._send({"type": "websocket.send", "bytes": None, "text": text})

    async def _send(self, message: Any) -> None:
        try:
            await self._socket.send(message)
        except OSError:  # how the server tells that the connection is gone
            raise CallerLeft from None


def decoded(message: bytes | str, kind: type[T]) -> T:
    """Return what a text says; ConfigError when it is bytes, or not valid."""
    if isinstance(message, bytes):
        raise ConfigError("this message must be a text, of JSON")
    try:
        return msgspec.json.decode(message, type=kind)
    except msgspec.DecodeError as error:
        raise ConfigError(f"a message is not valid: {error}") from None


async def serve(socket: AnySocket, body: Callable[[LiveSocket], Awaitable[None]]) -> None:
    """Accept, run the body until it ends, the caller leaves or the server stops, and close."""
    await socket.accept()
    live = LiveSocket(socket)
    try:
        await first(body(live), stopped(socket.app.state.stopping))
    except Stopped:
        pass
    except CallerLeft:
        return
    except HandiworkError as error:
        with contextlib.suppress(CallerLeft):
            await live.tell(ExecFrame(error=told(error)[1]))
    with contextlib.suppress(OSError):  # the caller left meanwhile
        await socket.close()

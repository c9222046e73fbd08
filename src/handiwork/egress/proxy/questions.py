"""DNS over the exit: messages with a two-byte length, answered from the binding's own names."""

import asyncio
import struct
from collections.abc import Callable
from typing import cast

_LENGTH = struct.Struct("!H")
_MAX_UNREAD = 65_536 + 2


class Questions(asyncio.Protocol):
    """One DNS connection. `answer` returns a reply, or nothing to stay silent."""

    def __init__(
        self,
        answer: Callable[[bytes], bytes],
        touch: Callable[["Questions"], None],
        gone: Callable[["Questions"], None],
    ) -> None:
        self._answer = answer
        self._touch = touch
        self._gone = gone
        self._incoming = bytearray()
        self._dropped = False
        self.touched = 0.0
        self.transport: asyncio.Transport | None = None
        """None: it was accepted, and the event loop has yet to hand it over."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self._touch(self)
        if self._dropped:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Answer each whole message."""
        self._touch(self)
        self._incoming += data
        while len(self._incoming) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._incoming)
            if len(self._incoming) < _LENGTH.size + length:
                break
            query = bytes(self._incoming[_LENGTH.size : _LENGTH.size + length])
            del self._incoming[: _LENGTH.size + length]
            reply = self._answer(query)
            if reply and self.transport is not None:
                self.transport.write(_LENGTH.pack(len(reply)) + reply)
        if len(self._incoming) > _MAX_UNREAD:
            self.abort()

    def pause_writing(self) -> None:
        """Drop whoever asks without reading the answers."""
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Tell that the connection is gone."""
        self._gone(self)

    def overdue(self, now: float) -> None:
        """Close what has been silent for long."""
        if self.transport is not None and now - self.touched > 30.0:
            self.abort()

    def abort(self) -> None:
        """Drop the connection now, or as soon as it is ours."""
        self._dropped = True
        if self.transport is not None:
            self.transport.abort()

"""Frames on a cell's one descriptor: four bytes of length, least first, and JSON. Blocking."""

import json
import os
import select
import struct
from typing import Any, NoReturn, Protocol

FRAME_BYTES = 32 << 20
READ_BYTES = 1 << 18
EXIT_BAD_FRAME = 5
_LENGTH = struct.Struct("<I")


class Host(Protocol):
    """Takes frames, and gives those that come."""

    def send(self, text: str) -> None:
        """Send a frame; ValueError when it is longer than one may be."""

    def receive(self, wait_seconds: float | None) -> Any:
        """Return the next frame, or None when none came in so long; None waits for ever."""


class Link:
    """The socket of a cell; one whose host is gone ends its process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting = bytearray()
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def send(self, text: str) -> None:
        """Send a frame; ValueError when it is longer than one may be."""
        data = text.encode("utf-8", "replace")
        if len(data) > FRAME_BYTES:
            raise ValueError(f"more than {FRAME_BYTES >> 20} MiB at once")
        rest = memoryview(_LENGTH.pack(len(data)) + data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                _end(0)

    def receive(self, wait_seconds: float | None) -> Any:
        """Return the next frame, or None when none came in so long; None waits for ever."""
        while (text := self._whole()) is None:
            wait_ms = None if wait_seconds is None else max(0.0, wait_seconds) * 1000
            if wait_ms is not None and not self._poll.poll(wait_ms):
                return None
            try:
                data = os.read(self._descriptor, READ_BYTES)
            except OSError:
                data = b""
            if not data:
                _end(0)
            self._waiting += data
        return json.loads(text)

    def _whole(self) -> bytes | None:
        if len(self._waiting) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._waiting)
        if length > FRAME_BYTES:
            _end(EXIT_BAD_FRAME)
        end = _LENGTH.size + length
        if len(self._waiting) < end:
            return None
        text = bytes(memoryview(self._waiting)[_LENGTH.size : end])
        del self._waiting[:end]
        return text


def _end(code: int) -> NoReturn:
    """At once: what code has registered for its end is not for this process to wait for."""
    os._exit(code)

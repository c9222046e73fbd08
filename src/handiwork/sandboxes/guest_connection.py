"""Connections of ours to ports that somebody inside a sandbox listens on, over its channel."""

import asyncio
import errno
from collections import deque
from collections.abc import Callable

from handiwork.model.errors import GuestError
from handiwork.sandboxes import frames
from handiwork.sandboxes.channel import Channel, finish, guest_error
from handiwork.sandboxes.frames import Frame

CONNECT_SECONDS = 20.0
"""How long the agent may take to say whether somebody listens; it gives up itself after 10 s."""

FRAMES = (frames.Connected, frames.Body, frames.Finished, frames.Grant)
CANCEL = frames.Cancel()


class GuestConnection:
    """One connection. One reader and one writer at a time; `close` it at the end."""

    def __init__(self, channel: Channel, on_end: Callable[[], None]) -> None:
        """`on_end` is called once, when the guest holds nothing of it any more."""
        self._channel = channel
        self._on_end = on_end
        self._chunks: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._connected = False
        self._their_end = False
        self._our_end = False

    async def open(self, port: int, family: int) -> None:
        """Connect; GuestError says why not."""
        asked = frames.Connect(family, port)
        try:
            self._request = await self._channel.open(
                asked, frames.End, FRAMES, sink=self._take, seconds=CONNECT_SECONDS
            )
        except BaseException:
            self._on_end()
            raise
        self._request.on_room = self._room.set
        self._request.done.add_done_callback(self._ended)
        try:
            while not self._connected and not self._request.done.done():
                await self._next_change()
        except asyncio.CancelledError:
            self._request.abandon(CANCEL)
            raise
        if not self._connected:
            await finish(self._request, CANCEL)
            raise GuestError("the guest ended what it had not begun", errno=errno.EPROTO)
        self._channel.deadlines.clear(self._request.id)

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end of their side; GuestError when it broke."""
        while not self._chunks:
            if self._request.done.done():
                await self._check_end()
                return b""
            if self._their_end:
                return b""
            await self._next_change()
        chunk = self._chunks.popleft()
        self._request.consumed(len(chunk))
        return chunk

    async def write(self, data: bytes) -> None:
        """Send; waits while they do not read. GuestError when it broke."""
        self._check_open()
        self._request.outbox = memoryview(data)
        self._channel.send(self._request.outgoing())
        while self._request.outbox:
            self._room.clear()
            self._check_open()
            await self._room.wait()

    async def finish(self) -> None:
        """End our side; they may still send. No-op when it is ended."""
        if not self._our_end and not self._request.done.done():
            self._request.outbox_ends = True
            self._channel.send(self._request.outgoing())
        self._our_end = True

    def close(self) -> None:
        """Let go: what has not ended on both sides is reset. No-op when it is gone."""
        self._request.abandon(CANCEL)

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, frames.Connected):
            self._once(self._connected, "connected twice")
            self._connected = True
        elif isinstance(frame, frames.Finished):
            self._once(self._their_end, "ended one side twice")
            self._their_end = True
        elif isinstance(frame, frames.Body):
            self._once(self._their_end, "sent after its end")
            self._chunks.append(frame.data)
        self._changed.set()

    def _once(self, already: bool, what: str) -> None:
        if already:
            raise frames.FrameError(f"the guest {what}")

    def _ended(self, _: "asyncio.Future[Frame]") -> None:
        self._changed.set()
        self._room.set()
        self._on_end()

    async def _check_end(self) -> None:
        ended = await self._request.done
        if isinstance(ended, frames.Failed):
            raise guest_error(ended)

    def _check_open(self) -> None:
        if self._our_end or self._request.done.done():
            raise GuestError("the connection is gone", errno=errno.EPIPE)

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

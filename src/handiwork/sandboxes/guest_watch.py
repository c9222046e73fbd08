"""What changes in a guest's directories, as its agent tells. Paths are a guest's: text to show, not to open."""

import asyncio
import errno
from collections import deque
from collections.abc import AsyncIterator
from typing import cast

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import FileChange, FileEvent
from handiwork.sandboxes import frames
from handiwork.sandboxes.channel import Channel, finish, guest_error
from handiwork.sandboxes.commands import guest_text, path_bytes
from handiwork.sandboxes.frames import Frame, FrameError

OPEN_SECONDS = 60.0
"""How long the agent may take to walk the tree that is to be watched."""

CANCEL = frames.Cancel()
_CHANGES = dict(enumerate(FileChange, start=1))
_WITHOUT_PATH = (FileChange.OVERFLOW,)


class GuestWatch:
    """One watch; `close` it at the end."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._events: deque[tuple[FileEvent, int]] = deque()
        self._changed = asyncio.Event()
        self._directories: int | None = None

    @property
    def directories(self) -> int:
        """How many directories were watched when it stood."""
        return self._directories or 0

    async def open(self, path: str, *, recursive: bool) -> None:
        """Watch; returns when it stands, so that whatever changes from then on is told."""
        asked = frames.Watch(frames.WATCH_RECURSIVE if recursive else 0, path_bytes(path))
        self._request = await self._channel.open(
            asked,
            frames.End,
            (frames.Watched, frames.Events),
            sink=self._take,
            seconds=OPEN_SECONDS,
        )
        self._request.done.add_done_callback(lambda _: self._changed.set())
        try:
            while self._directories is None and not self._request.done.done():
                await self._next_change()
        except asyncio.CancelledError:
            self.close()
            raise
        if self._directories is None:
            await finish(self._request, CANCEL)
            raise GuestError(f"{path[:200]} went before it was watched", errno=errno.ENOENT)
        self._channel.deadlines.clear(self._request.id)

    async def events(self) -> AsyncIterator[FileEvent]:
        """Yield what changes, until what is watched is gone."""
        while True:
            while self._events:
                event, size = self._events.popleft()
                self._request.consumed(size)
                yield event
            if self._request.done.done():
                ended = self._request.done.result()
                if isinstance(ended, frames.Failed):
                    raise guest_error(ended)
                return
            await self._next_change()

    def close(self) -> None:
        """Watch no more. No-op when it has ended."""
        self._request.abandon(CANCEL)

    def _take(self, frame: Frame) -> None:
        if isinstance(frame, frames.Watched):
            if self._directories is not None:
                raise FrameError("the guest began to watch twice")
            self._directories = frame.directories
        else:
            self._events.extend(map(_event, cast("frames.Events", frame).items))
        self._changed.set()

    async def _next_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _event(found: frames.Event) -> tuple[FileEvent, int]:
    change = _CHANGES.get(found.what)
    parts = found.path.split(b"/") if found.path else []
    if change is None or any(part in (b"", b".", b"..") or 0 in part for part in parts):
        raise FrameError("the guest told of a change that cannot be")
    if change in _WITHOUT_PATH and parts:
        raise FrameError("the guest told of a path where there is none")
    event = FileEvent(change=change, path=guest_text(found.path), directory=bool(found.directory))
    return event, frames.event_bytes(found)

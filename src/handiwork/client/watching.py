"""What changes in a directory of a sandbox, as it changes."""

from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from handiwork.client.link import lines
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import FileEvent
from handiwork.model.wire import WatchFrame, error_of


class Watch:
    """An asynchronous iterator of changes; it ends when what is watched is gone."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._frames = _frames(chunks)
        self.directories = 0
        """How many directories were watched when it stood."""

    async def open(self) -> None:
        """Wait until it stands; whatever changes from then on is told."""
        async for frame in self._frames:
            self.directories = frame.directories or 0
            return
        raise SandboxUnavailableError("the control plane stopped before the watch stood")

    async def __aiter__(self) -> AsyncGenerator[FileEvent, None]:
        """Yield what changes."""
        async for frame in self._frames:
            if frame.gone:
                return
            if frame.event is not None:
                yield frame.event
        raise SandboxUnavailableError("the control plane stopped before the watch ended")


async def _frames(chunks: AsyncIterator[bytes]) -> AsyncGenerator[WatchFrame, None]:
    async for line in lines(chunks):
        try:
            frame = msgspec.json.decode(line, type=WatchFrame)
        except msgspec.DecodeError:
            raise SandboxUnavailableError("the stream of the watch was cut off") from None
        if frame.error is not None:
            raise error_of(frame.error)
        yield frame

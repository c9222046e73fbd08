"""Live events of a session, to any number of subscribers that each may be slow. No socket here."""

import asyncio
from collections.abc import AsyncIterator

import msgspec

from handiwork.brains.local.turn import Event

BUFFERED_FRAMES = 1024
"""Frames that may wait for a subscriber; one that falls further behind is disconnected."""
PING = b"event: ping\ndata: {}\n\n"


def frame(event: Event) -> bytes:
    """Return the event as server-sent text; clients drop frames without an `event:` line."""
    return b"event: %s\ndata: %s\n\n" % (event["type"].encode(), msgspec.json.encode(event))


class Subscriber:
    """One open stream; with `previews` it is also shown messages that are still being said."""

    def __init__(self, *, previews: bool = False) -> None:
        self._previews = previews
        self._previewed = ""
        self._frames: list[bytes] = []
        self._wake = asyncio.Event()
        self._closed = False

    def send(self, data: bytes) -> None:
        """Add a frame; too far behind, the stream ends and its client reads the history again."""
        if len(self._frames) >= BUFFERED_FRAMES:
            self._frames.clear()
            self._closed = True
        if not self._closed:
            self._frames.append(data)
        self._wake.set()

    def preview(self, event_id: str, data: bytes, starts: bool) -> None:
        """Add a piece of a preview, which may stop early but has no gaps.

        One that this stream did not see begin is left out; one that it is too slow for stops.
        """
        if starts:
            self._previewed = event_id
        if not self._previews or self._previewed != event_id:
            return
        if len(self._frames) >= BUFFERED_FRAMES // 2:
            self._previewed = ""
        else:
            self.send(data)

    def close(self) -> None:
        """End the stream after what it still holds."""
        self._closed = True
        self._wake.set()

    async def chunks(self, ping_seconds: float) -> AsyncIterator[bytes]:
        """Yield what has gathered, pings while nothing does, until the stream is closed."""
        yield PING
        while True:
            if self._frames:
                gathered = b"".join(self._frames)
                self._frames.clear()
                yield gathered
            elif self._closed:
                return
            else:
                self._wake.clear()
                try:
                    async with asyncio.timeout(ping_seconds):
                        await self._wake.wait()
                except TimeoutError:
                    yield PING

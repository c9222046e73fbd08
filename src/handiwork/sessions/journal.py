"""What operators see happen to a session, written in order and off the path of a tool call."""

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from handiwork.store.protocol import Sessions

MAX_NOTES = 10_000
"""So many may wait to be written; more are counted, and the count is told."""


class Journal:
    """Notes of one session. Their data holds no output, no input and no secret."""

    def __init__(self, sessions: Sessions, session_id: str, clock: Callable[[], datetime]) -> None:
        self._sessions = sessions
        self._session_id = session_id
        self._clock = clock
        self._notes: deque[tuple[str, dict[str, Any], datetime]] = deque()
        self._dropped = 0
        self._some = asyncio.Event()
        self._writing = asyncio.Lock()

    def note(self, kind: str, **data: Any) -> None:
        """Remember a note; `follow` writes it soon."""
        if len(self._notes) >= MAX_NOTES:
            self._dropped += 1
            return
        self._notes.append((kind, data, self._clock()))
        self._some.set()

    async def follow(self) -> None:
        """Write notes as they come, until cancelled."""
        while True:
            await self._some.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        async with self._writing:
            self._some.clear()
            while self._notes:
                kind, data, at = self._notes[0]
                await self._sessions.record(self._session_id, kind, data, at)
                self._notes.popleft()
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                data = {"count": dropped}
                await self._sessions.record(
                    self._session_id, "journal.dropped", data, self._clock()
                )

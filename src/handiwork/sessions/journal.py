"""What may be written a little later than it happens, in order and off the path of a tool call.

Notes are what operators see happen to a session; beside them stand other writes that nobody waits
for. Those that gather for a moment are handed to the store together and share its commit.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from handiwork.model.errors import sole
from handiwork.store.protocol import Sessions

GATHER_SECONDS = 0.1
MAX_WAITING = 10_000
"""So many may wait; notes beyond them are counted, and the count is told."""

Write = Callable[[], Awaitable[object]]


class Journal:
    """The later writes of one session. Data of notes holds no output, no input and no secret."""

    def __init__(self, sessions: Sessions, session_id: str, clock: Callable[[], datetime]) -> None:
        self._sessions = sessions
        self._session_id = session_id
        self._clock = clock
        self._waiting: deque[Write] = deque()
        self._dropped = 0
        self._some = asyncio.Event()
        self._writing = asyncio.Lock()

    def note(self, kind: str, **data: Any) -> None:
        """Remember a note."""
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
        else:
            self.later(self._record(kind, data))

    def later(self, write: Write) -> None:
        """Remember a write; it may run twice when this session is cancelled meanwhile."""
        self._waiting.append(write)
        self._some.set()

    async def follow(self) -> None:
        """Write what gathers, until cancelled."""
        while True:
            await self._some.wait()
            await asyncio.sleep(GATHER_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        async with self._writing:
            self._some.clear()
            if self._dropped:
                self._waiting.append(self._record("journal.dropped", {"count": self._dropped}))
                self._dropped = 0
            batch = list(self._waiting)
            self._waiting.clear()
            tasks: list[asyncio.Task[None]] = []
            try:
                async with asyncio.TaskGroup() as group:
                    tasks += [group.create_task(_run(write)) for write in batch]
            except BaseExceptionGroup as errors:
                raise sole(errors) from None
            finally:
                undone = [w for w, task in zip(batch, tasks, strict=True) if task.cancelled()]
                self._waiting.extendleft(reversed(undone))

    def _record(self, kind: str, data: dict[str, Any]) -> Write:
        return functools.partial(self._sessions.record, self._session_id, kind, data, self._clock())


async def _run(write: Write) -> None:
    await write()

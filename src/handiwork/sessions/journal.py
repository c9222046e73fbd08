"""What may be written a little later than it happens, in order and off the path of a tool call.

Notes are what operators see happen to a session; beside them stand what it waits for and other
writes that nobody waits for. Those that gather for a moment are handed to the store together and
share its commit.
"""

import asyncio
import functools
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from handiwork.model.errors import sole
from handiwork.model.session import Waiting, WaitingKind
from handiwork.sessions.waits import Waits
from handiwork.store.protocol import Sessions

GATHER_SECONDS = 0.1
MAX_WAITING = 10_000
"""So many may wait; notes beyond them are counted, and the count is told."""

Write = Callable[[], Awaitable[object]]


class Journal:
    """The later writes of one session. Data of notes holds no output, no input and no secret.

    `changed` is called when what the session waits for has changed, to keep it with the session.
    """

    def __init__(
        self,
        sessions: Sessions,
        session_id: str,
        clock: Callable[[], datetime],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._sessions = sessions
        self._session_id = session_id
        self._clock = clock
        self._changed = changed
        self._waits = Waits()
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

    @property
    def waiting(self) -> tuple[Waiting, ...]:
        """Return what the session waits for, oldest first."""
        return self._waits.all()

    def resume(self, former: tuple[Waiting, ...]) -> None:
        """Go on from what a former run waited for: what still holds keeps its `since`."""
        self._waits.resume(former)

    def waits(
        self, kind: WaitingKind, reason: str, *, name: str = "", tool_use_id: str = ""
    ) -> None:
        """Tell what the session waits for from now on; told again, only its reason changes."""
        one = Waiting(
            kind=kind, reason=reason, name=name, tool_use_id=tool_use_id, since=self._clock()
        )
        if self._waits.add(one):
            self.note("session.waits", **_told(one), reason=one.reason)
        self._changed()

    def waits_no_more(
        self, kind: WaitingKind | None = None, *, name: str = "", tool_use_id: str = ""
    ) -> None:
        """End what fits; an argument that is left out fits all. No-op when nothing does."""
        gone = self._waits.remove(kind, name=name, tool_use_id=tool_use_id)
        for one in gone:
            seconds = round((self._clock() - one.since).total_seconds(), 3)
            self.note("session.waits_no_more", **_told(one), seconds=seconds)
        if gone:
            self._changed()

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


def _told(waiting: Waiting) -> dict[str, str]:
    told = {
        "waits_for": waiting.kind.value,
        "name": waiting.name,
        "tool_use_id": waiting.tool_use_id,
    }
    return {key: value for key, value in told.items() if value}

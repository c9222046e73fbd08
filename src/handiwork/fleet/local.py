"""Placement on this process: every session's body is a task of one group."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Self

from handiwork.model.errors import ConflictError
from handiwork.observe import log

Body = Callable[[], Awaitable[None]]


class LocalFleet:
    """At most `max_sessions` bodies at once. Use it as an async context: leaving it drains."""

    def __init__(self, *, max_sessions: int, handover_seconds: float = 2.0) -> None:
        self._max = max_sessions
        self._handover = handover_seconds
        self._group = asyncio.TaskGroup()
        self._bodies: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(max_sessions)
        self._taken = 0
        self._running = 0
        self._apart: set[asyncio.Task[object] | None] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._log = log.get("fleet")

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.drain()
        await self._group.__aexit__(kind, error, trace)

    @property
    def free(self) -> int:
        """Return how many places are neither used nor reserved."""
        return self._max - self._taken

    async def reserve(self) -> None:
        """Take a place, waiting in turn for one."""
        await self._places.acquire()
        self._taken += 1

    def release(self) -> None:
        """Give a place back."""
        self._taken -= 1
        self._places.release()

    async def submit(self, session_id: str, run: Body, *, reserved: bool = False) -> None:
        """Start the body, after the session's former one if that still runs."""
        if not reserved:
            if self.free <= 0:
                raise ConflictError(
                    f"this node serves {self._max} sessions already; try again later"
                )
            await self.reserve()
        former = self._bodies.get(session_id)
        self._running += 1
        self._empty.clear()
        task = self._group.create_task(self._guarded(session_id, run, former), name=session_id)
        self._bodies[session_id] = task
        task.add_done_callback(lambda done: self._ended(session_id, done))

    @contextlib.asynccontextmanager
    async def apart(self) -> AsyncIterator[None]:
        """Give the calling body's place away; one that fails or is cancelled in here has none."""
        body = asyncio.current_task()
        self._apart.add(body)
        self.release()
        yield
        await self.reserve()
        self._apart.discard(body)

    async def emptied(self) -> None:
        """Return when no body runs."""
        await self._empty.wait()

    async def stop(self, session_id: str) -> bool:
        """Cancel the session's body and wait until it is over."""
        task = self._bodies.get(session_id)
        if task is None:
            return False
        task.cancel()
        await asyncio.wait([task])
        return True

    async def drain(self) -> None:
        """Cancel all bodies at once and wait for them."""
        tasks = list(self._bodies.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _guarded(self, session_id: str, run: Body, former: asyncio.Task[None] | None) -> None:
        if former is not None and not former.done():
            await self._take_over(former)
        try:
            await run()
        except Exception:  # noqa: BLE001 - a fault in one session must not end the others
            self._log.exception("session body failed", session=session_id)

    async def _take_over(self, former: asyncio.Task[None]) -> None:
        try:
            await asyncio.wait([former], timeout=self._handover)
        finally:
            # Also when its successor is cancelled meanwhile: nobody else knows of it any more.
            if not former.done():
                former.cancel()
                await asyncio.wait([former])

    def _ended(self, session_id: str, task: asyncio.Task[None]) -> None:
        if task in self._apart:
            self._apart.discard(task)
        else:
            self.release()
        self._running -= 1
        if not self._running:
            self._empty.set()
        if self._bodies.get(session_id) is task:
            del self._bodies[session_id]

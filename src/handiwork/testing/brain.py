"""A brain in memory: the fake behind `brains/protocol.py`.

It passes the same contract suite as the real adapters. Tests speak to its user's side: `session`,
`say`, `emit`; and make it fail: `lose`, `ask_to_stop`, `refuse`, `unavailable`.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

from handiwork.brains.history import History
from handiwork.model.environment import QueueStats
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    HandiworkError,
    LeaseLostError,
    NotFoundError,
    sole,
)
from handiwork.model.placeholder import Credential
from handiwork.model.session import (
    BrainEvent,
    BrainReached,
    BrainSession,
    BrainSessionEnded,
    Interrupted,
    ToolCalled,
    ToolSettled,
    TurnIdle,
    TurnRunning,
    WorkItem,
)
from handiwork.model.tool import ToolCall, ToolResult

CLAIM_SECONDS = 0.05


class _Session:
    def __init__(self, view: BrainSession) -> None:
        self.view = view
        self.credentials: tuple[Credential, ...] = ()
        self.log: list[BrainEvent] = []
        self.streams: list[asyncio.Queue[BrainEvent]] = []
        self.open: set[str] = set()
        self.work: WorkItem | None = None
        self.lost: asyncio.Future[None] | None = None
        self.stopped: asyncio.Future[None] | None = None


class _StopRequestedError(Exception):
    """The brain asks for the item to be stopped."""


class FakeBrain:
    """One environment. `posts` are the results it took, `stops` the work items that were stopped."""

    def __init__(self, environment_id: str = "env_fake") -> None:
        self._environment_id = environment_id
        self._sessions: dict[str, _Session] = {}
        self._queue: asyncio.Queue[WorkItem] = asyncio.Queue()
        self._count = 0
        self.posts: list[ToolResult] = []
        self.stops: list[str] = []
        self.refuse: str = ""
        self.unavailable: str = ""
        self.describing: HandiworkError | None = None
        self.held: dict[str, WorkItem] = {}

    # --- the user's side ---

    def session(self, view: BrainSession) -> None:
        """Make a session; nothing is queued for it yet."""
        self._sessions[view.id] = _Session(view)

    def bring(self, session_id: str, *credentials: Credential) -> None:
        """Have the session bring these along."""
        self._sessions[session_id].credentials = credentials

    def say(self, session_id: str, *calls: ToolCall) -> None:
        """Run one turn that asks for these calls; queue work where nobody serves the session."""
        session = self._sessions[session_id]
        session.open |= {call.id for call in calls}
        self.emit(session_id, TurnRunning())
        for call in calls:
            self.emit(session_id, ToolCalled(call=call))
        self.emit(session_id, TurnIdle(stop_reason="requires_action" if calls else "end_turn"))
        if session.work is None:
            self._offer(session)

    def emit(self, session_id: str, event: BrainEvent) -> None:
        """Add an event to a session and tell it to those who follow."""
        self.miss(session_id, event)
        for stream in self._sessions[session_id].streams:
            stream.put_nowait(event)

    def miss(self, session_id: str, event: BrainEvent) -> None:
        """Add an event that no stream tells: who follows finds it at the next reconnect."""
        session = self._sessions[session_id]
        session.log.append(event)
        if isinstance(event, ToolSettled):
            session.open.discard(event.tool_use_id)
        elif isinstance(event, Interrupted | BrainSessionEnded):
            session.open.clear()

    def break_streams(self, session_id: str) -> None:
        """Let every stream of the session reconnect, and so reconcile again."""
        session = self._sessions[session_id]
        for stream in session.streams:
            for event in (BrainReached(), *_pending(session)):
                stream.put_nowait(event)

    def lose(self, session_id: str) -> None:
        """Give the lease to somebody else."""
        lost = self._sessions[session_id].lost
        if lost is not None:
            lost.set_result(None)

    def offer(self, session_id: str) -> None:
        """Queue work for the session again."""
        self._offer(self._sessions[session_id])

    def ask_to_stop(self, session_id: str) -> None:
        """Ask the holder to stop."""
        stopped = self._sessions[session_id].stopped
        if stopped is not None:
            stopped.set_result(None)

    def events_of(self, session_id: str) -> list[BrainEvent]:
        """Return all that happened."""
        return list(self._sessions[session_id].log)

    # --- the hands' side ---

    @property
    def environment_id(self) -> str:
        """Return the environment's id."""
        return self._environment_id

    async def close(self) -> None:
        """There is nothing to release."""

    async def claim(self) -> WorkItem | None:
        """Wait a moment for work."""
        if self.unavailable:
            raise BrainUnavailableError(self.unavailable)
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                return await self._queue.get()
        except TimeoutError:
            return None

    async def resume(self) -> list[WorkItem]:
        """Return what is held, as a successor of the holder would find it."""
        return list(self.held.values())

    async def stats(self) -> QueueStats:
        """Count what waits."""
        if self.unavailable:
            raise BrainUnavailableError(self.unavailable)
        return QueueStats(depth=self._queue.qsize(), workers_polling=1)

    @contextlib.asynccontextmanager
    async def hold(self, work: WorkItem) -> AsyncIterator[None]:
        """Hold until the body ends, `lose` or `ask_to_stop`."""
        session = self._sessions[work.session_id]
        loop = asyncio.get_running_loop()
        lost, stopped = loop.create_future(), loop.create_future()
        session.lost, session.stopped = lost, stopped
        self.held[work.id] = work
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(_watch(lost, stopped))
                yield
                watch.cancel()
        except BaseExceptionGroup as errors:
            error = sole(errors)
            if lost.done():
                raise LeaseLostError(f"the lease of {work.id} is lost") from None
            if not isinstance(error, _StopRequestedError):
                raise error from None
        finally:
            self.held.pop(work.id, None)
            session.lost = session.stopped = session.work = None
            if not lost.done():
                self.stops.append(work.id)
            if session.open and not lost.done():
                self._offer(session)

    async def describe(self, work: WorkItem) -> BrainSession:
        """Return the session."""
        if self.describing is not None:
            raise self.describing
        return self._sessions[work.session_id].view

    async def ended(self, session_id: str) -> str:
        """Say whether the session is terminated or was ended by an event; unknown is deleted."""
        if self.unavailable:
            raise BrainUnavailableError(self.unavailable)
        session = self._sessions.get(session_id)
        if session is None:
            return "the brain deleted it"
        is_over = any(isinstance(event, BrainSessionEnded) for event in session.log)
        return "the brain ended it" if is_over or session.view.terminated else ""

    async def credentials(self, work: WorkItem) -> tuple[Credential, ...]:
        """Return what `bring` gave the session."""
        return self._sessions[work.session_id].credentials

    async def events(self, work: WorkItem) -> AsyncGenerator[BrainEvent, None]:
        """Yield what is pending, then what comes."""
        session = self._sessions[work.session_id]
        stream: asyncio.Queue[BrainEvent] = asyncio.Queue()
        for event in (BrainReached(), *_pending(session)):
            stream.put_nowait(event)
        session.streams.append(stream)
        try:
            while True:
                event = await stream.get()
                yield event
                if isinstance(event, BrainSessionEnded):
                    return
        finally:
            session.streams.remove(stream)

    async def post(self, work: WorkItem, result: ToolResult) -> None:
        """Take a result; the turn ends when no call is open."""
        if self.refuse:
            raise BrainRefusedError(self.refuse)
        session = self._sessions.get(work.session_id)
        if session is None:
            raise NotFoundError(f"there is no session {work.session_id!r}")
        self.posts.append(result)
        self.emit(work.session_id, ToolSettled(tool_use_id=result.tool_use_id))
        if not session.open:
            self.emit(work.session_id, TurnIdle(stop_reason="end_turn"))

    def _offer(self, session: _Session) -> None:
        self._count += 1
        session.work = WorkItem(
            id=f"work_{self._count:08}",
            environment_id=self._environment_id,
            kind="session",
            session_id=session.view.id,
        )
        self._queue.put_nowait(session.work)


def _pending(session: _Session) -> list[BrainEvent]:
    history = History()
    for event in session.log:
        history.add(event)
    return history.pending()


async def _watch(lost: "asyncio.Future[None]", stopped: "asyncio.Future[None]") -> None:
    await asyncio.wait([lost, stopped], return_when=asyncio.FIRST_COMPLETED)
    if lost.done():
        raise LeaseLostError("lost")
    raise _StopRequestedError

"""One session, first to last: hold the lease, prepare a sandbox, answer tool calls, rest."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from handiwork.brains.protocol import Brain
from handiwork.config import SessionSettings, ToolSettings
from handiwork.model.errors import (
    ConflictError,
    HandiworkError,
    LeaseLostError,
    NotFoundError,
    sole,
)
from handiwork.model.sandbox import SandboxState
from handiwork.model.session import (
    BrainEvent,
    BrainReached,
    BrainSession,
    BrainSessionEnded,
    BrainUnreached,
    Interrupted,
    RefusedResult,
    Session,
    SessionChanged,
    SessionState,
    ToolCalled,
    ToolConfirmed,
    ToolSettled,
    TurnIdle,
    TurnRunning,
    WaitingKind,
    WorkItem,
)
from handiwork.model.tool import LedgerEntry, ToolCall
from handiwork.observe import log
from handiwork.observe.metrics import Metrics
from handiwork.sandboxes.protocol import Sandbox
from handiwork.sessions.attachments import Attachments, Sources
from handiwork.sessions.backoff import BackOff, Failure
from handiwork.sessions.calls import CallPath, Calls
from handiwork.sessions.drain import Drain
from handiwork.sessions.journal import Journal
from handiwork.sessions.lifecycle import Command, Happening, step
from handiwork.sessions.notices import NoticedToolset, SessionNotices, notify
from handiwork.sessions.policies import PolicyResolver
from handiwork.sessions.quiet import Quiet
from handiwork.sessions.sandbox_request import SandboxRequest
from handiwork.sessions.sandboxes import LiveSandboxes
from handiwork.sessions.stragglers import Stragglers
from handiwork.store.protocol import Store
from handiwork.tools.registry import Registry
from handiwork.tools.toolset import RefusingToolset, SessionToolset, Toolset

STOPPED_BY_OPERATOR = "it was stopped by the operator"
HOST_STOPPED = "this host stopped serving it; it goes on after a restart"

FAULT = "a fault of ours ended it; the control plane's log has the cause"

UNSERVED = "the agent declares it and nobody serves it here; its calls wait for somebody else"

AWAY = "event stream"
"""What is waited for while the brain cannot be reached."""

SERVED = (SessionState.CLAIMED, SessionState.STARTING, SessionState.ACTIVE)

READ_ONLY = frozenset({"read", "glob", "grep"})
"""Tools that change no file."""

MAX_REFUSED_RESULTS = 8

_WAITS_FOR_NOTHING = (SessionState.SLEEPING, SessionState.LOST, SessionState.ENDED)
"""A session that rests, is over, or is another's to tell about; a stopped one goes on waiting."""


def nobody(_sandbox_id: str) -> None:
    """Take that a call has written, where nobody wants to know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hands:
    """What sessions of one brain are served with.

    `stops` are sessions that the operator stopped in the middle of a turn: the brain offers them
    again, and what the rest of that turn asks for is answered, not run. `backoff` knows those that
    failed and are left alone for a while. `written` is told a sandbox in which a call has ended that
    may have written.
    """

    brain: Brain
    store: Store
    sandboxes: LiveSandboxes
    policies: PolicyResolver
    registry: Registry
    settings: SessionSettings
    clock: Callable[[], datetime]
    tools: ToolSettings = field(default_factory=ToolSettings)
    sources: Sources = field(default_factory=Sources)
    stops: set[str] = field(default_factory=set)
    stragglers: Stragglers = field(default_factory=Stragglers)
    metrics: Metrics = field(default_factory=Metrics)
    drain: Drain = field(default_factory=Drain)
    backoff: BackOff = field(default_factory=BackOff)
    written: Callable[[str], None] = nobody


Aside = Callable[[], AbstractAsyncContextManager[None]]


async def serve(hands: Hands, work: WorkItem, aside: Aside = contextlib.nullcontext) -> None:
    """Serve a session from a claimed work item to its rest; how it ended is in the store.

    It is `aside` while it is left alone: its place here is for others then.
    """
    await _Run(hands, work, aside).run()


class _DrainedError(Exception):
    """Serving ends while the session is left alone."""


class _Run:
    """One work item's worth of a session."""

    def __init__(self, hands: Hands, work: WorkItem, aside: Aside = contextlib.nullcontext) -> None:
        self._hands = hands
        self._work = work
        self._aside = aside
        self._session: Session | None = None
        self._rests = False
        self._journal = Journal(
            hands.store.sessions, work.session_id, hands.clock, self._waiting_changed
        )
        self._attachments = Attachments(
            hands.sources, work, self._journal, self._live_sandbox, self._claim
        )
        self._notices = SessionNotices(hands.store, work.session_id)
        self._fresh = False
        self._unsaved = False
        self._open: dict[str, LedgerEntry] = {}
        self._may_write: set[str] = set()
        self._quiet = Quiet(hands.settings.idle_seconds, hands.settings.lease_seconds)
        self._log = log.get("session").bind(session=work.session_id)

    async def run(self) -> None:
        """Hold the lease around everything; write down how it ended."""
        try:
            async with self._hands.brain.hold(self._work), self._counted():
                await self._left_alone()
                await self._held()
            if not self._rests:
                await self._end(Happening.STOPPED, "the brain stopped its work item")
        except LeaseLostError as error:
            self._hands.metrics.lease_lost()
            await self._end(Happening.LOST, str(error))
        except asyncio.CancelledError:
            await self._end(Happening.STOPPED, self._why_cancelled())
            raise
        except _DrainedError:
            await self._end(Happening.STOPPED, HOST_STOPPED)
        except HandiworkError as error:
            await self._fail(str(error))
        except Exception as error:  # noqa: BLE001 - it is told on the session, which others outlive
            self._log.exception("a fault of ours", work=self._work.id)
            await self._fail(f"{FAULT} ({type(error).__name__})")

    async def _fail(self, reason: str) -> None:
        now = asyncio.get_running_loop().time()
        self._hands.backoff.failed(self._work.session_id, reason, now)
        await self._end(Happening.STOPPED, reason)

    @contextlib.asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        """Count the lease while the body runs, and forget what this run's session waits for."""
        metrics = self._hands.metrics
        metrics.lease_held()
        try:
            yield
        finally:
            metrics.lease_ended()
            metrics.waits(self._work.served_as, ())

    async def _left_alone(self) -> None:
        """Leave a session that failed here before alone for its time, with its lease held.

        An item that we gave back would be ours again at once, and some brains offer one that was
        stopped in the middle of a turn to nobody. What is said meanwhile is in the history then.
        """
        now = asyncio.get_running_loop().time()
        failure = self._hands.backoff.of(self._work.session_id, now)
        if failure is None:
            return
        await self._show(failure)
        drained = self._hands.drain.begun
        async with self._aside():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(failure.until - now):
                    await drained.wait()
            if drained.is_set():
                raise _DrainedError
        if drained.is_set():  # while it waited for a place again
            raise _DrainedError

    async def _show(self, failure: Failure) -> None:
        """Tell it on the session; that must not fail, or the session would not be left alone."""
        try:
            self._session = await self._load()
            self._journal.waits(WaitingKind.RETRY, str(failure))
            await self._move(Happening.CLAIMED)
            await self._journal.flush()
        except Exception as error:  # noqa: BLE001 - what is wrong with it may be just this
            self._log.warning("left alone", why=str(failure), not_shown=str(error))

    async def _held(self) -> None:
        """Everything between the first heartbeat and the last."""
        hands, work = self._hands, self._work
        self._session = await self._load()
        await self._move(Happening.CLAIMED)
        view = await hands.brain.describe(work)
        self._session = msgspec.structs.replace(
            self._session,
            agent_id=view.agent_id,
            agent_name=view.agent_name,
            title=view.title,
            tier=await hands.policies.tier(work.environment_id, view.agent_id, work.session_id),
        )
        await self._learn_credentials(view)
        await self._move(Happening.HELD)
        if view.terminated:
            await self._rest(Happening.ENDED, "the brain had ended it before")
            return
        toolset = NoticedToolset(await self._prepare(view), self._notices)
        sandbox_id, renewals = self._known().sandbox_id, hands.sandboxes.renewals
        renewals[sandbox_id] = lambda: self._attachments.renew(view)
        try:
            happening, reason = await self._follow(toolset)
            await self._attachments.finish()
            await self._rest(happening, reason)
        except asyncio.CancelledError:
            await self._attachments.save()
            await self._free_sandbox()
            raise
        finally:
            renewals.pop(sandbox_id, None)

    async def _learn_credentials(self, view: BrainSession) -> None:
        """Take in what the session brings along before its sandbox is made or woken."""
        brought = await self._hands.brain.credentials(self._work) if view.vault_ids else ()
        credentials = self._hands.sandboxes.credentials
        for reason in await credentials.learn(self._work.session_id, brought):
            self._journal.note("credential.refused", reason=reason)

    async def _load(self) -> Session:
        work, now = self._work, self._hands.clock()
        try:
            known = await self._hands.store.sessions.get(work.session_id)
            if known.environment_id != work.environment_id:
                # Its workspace and its secrets are not this brain's to have, whatever it says.
                raise ConflictError(
                    f"{work.session_id} is a session of environment {known.environment_id};"
                    f" that of {work.environment_id} with the same id is not served"
                )
            self._journal.resume(known.waiting)
            return msgspec.structs.replace(known, work_id=work.id)
        except NotFoundError:
            return Session(
                id=work.session_id,
                environment_id=work.environment_id,
                state=SessionState.CLAIMED,
                work_id=work.id,
                created_at=now,
                updated_at=now,
            )

    async def _former(self) -> Session | None:
        """Return the session as a former run of ours left it in the middle of this work item."""
        try:
            known = await self._hands.store.sessions.get(self._work.session_id)
        except NotFoundError:
            return None
        work = self._work
        is_its_own = (known.work_id, known.environment_id) == (work.id, work.environment_id)
        return known if is_its_own and known.state in SERVED else None

    async def _prepare(self, view: BrainSession) -> Toolset:
        """Return the session's tools in its sandbox; or, where that fails, what says why."""
        try:
            self._refuse_stopped()
            sandbox_id = await self._sandbox(view)
        except HandiworkError as error:
            self._journal.waits(WaitingKind.SANDBOX, str(error))
            return await self._refuse(view, error)
        finally:
            self._hands.sandboxes.expect_no_more(self._work.served_as)
        try:
            await self._attachments.attach(view, fresh=self._fresh)
        except HandiworkError as error:
            await self._undo_sandbox(sandbox_id)
            return await self._refuse(view, error)
        self._journal.waits_no_more(WaitingKind.RETRY)
        await self._move(Happening.READY)
        toolset = SessionToolset(
            view,
            self._hands.registry,
            lambda: self._hands.sandboxes.use(sandbox_id),
            settings=self._hands.tools,
            state=lambda: self._hands.sandboxes.tools(sandbox_id),
        )
        if missing := toolset.missing():
            self._journal.note("tools.unserved", tools=missing)
        for name in missing:
            self._journal.waits(WaitingKind.UNSERVED_TOOL, UNSERVED, name=name)
        return toolset

    async def _refuse(self, view: BrainSession, error: HandiworkError) -> Toolset:
        self._journal.waits_no_more(WaitingKind.RETRY)
        await self._move(Happening.REFUSED, str(error))
        return RefusingToolset(view, self._hands.registry, str(error))

    async def _undo_sandbox(self, sandbox_id: str) -> None:
        """Let go of a sandbox that lacks what it must hold; one that never served leaves nothing."""
        if not self._fresh:
            await self._free_sandbox()
            return
        await self._hands.sandboxes.close(sandbox_id)
        self._session = msgspec.structs.replace(self._known(), sandbox_id="")

    async def _claim(self, path: str) -> None:
        await self._hands.sandboxes.claim(self._known().sandbox_id, path)

    async def _live_sandbox(self) -> Sandbox:
        return await self._hands.sandboxes.use(self._known().sandbox_id)

    def _refuse_stopped(self) -> None:
        if self._work.session_id in self._hands.stops:
            raise ConflictError(STOPPED_BY_OPERATOR)

    def _why_cancelled(self) -> str:
        """Return the reason; a stop between two turns is over with it.

        Whoever was stopped before the history was read was claimed for a turn that is still open.
        """
        stops, session_id = self._hands.stops, self._work.session_id
        if session_id not in stops:
            return HOST_STOPPED
        if self._quiet.turn_over:
            stops.discard(session_id)
        return STOPPED_BY_OPERATOR

    async def _sandbox(self, view: BrainSession) -> str:
        """Wake the session's sandbox, or make its first."""
        session, sandboxes = self._known(), self._hands.sandboxes
        if session.sandbox_id:
            record = await self._hands.store.sandboxes.get(session.sandbox_id)
            if record.state not in (SandboxState.FAILED, SandboxState.GONE):
                await sandboxes.wake(record.id, wanted_by=self._work.served_as)
                self._journal.note("sandbox.woken", sandbox_id=record.id)
                return record.id
            reason = record.reason or record.state.value
            self._journal.note("sandbox.replaced", sandbox_id=record.id, reason=reason)
            text = f"this sandbox is new and empty; the former one is gone: {reason}"
            await notify(self._hands.store, session.id, text, self._hands.clock)
        policies = self._hands.policies
        image, limits = await policies.machine(session.environment_id, view.agent_id)
        request = SandboxRequest(
            tier=session.tier,
            image=image,
            limits=limits,
            session_id=session.id,
            agent_id=view.agent_id,
        )
        record = await sandboxes.create(request, wanted_by=self._work.served_as)
        self._session = msgspec.structs.replace(session, sandbox_id=record.id)
        self._fresh = True
        self._journal.note("sandbox.created", sandbox_id=record.id, tier=record.tier)
        return record.id

    async def _follow(self, toolset: Toolset) -> tuple[Happening, str]:
        """Answer calls until the session has rested long enough, or has ended."""
        hands = self._hands
        entries = await hands.store.ledger.open(self._work.session_id)
        self._open = {entry.tool_use_id: entry for entry in entries}
        path = CallPath(
            work=self._work,
            brain=hands.brain,
            ledger=hands.store.ledger,
            toolset=toolset,
            journal=self._journal,
            clock=hands.clock,
            former=self._open,
            parallel_calls=hands.settings.parallel_calls,
            stragglers=hands.stragglers,
            metrics=hands.metrics,
            refused=self._result_refused,
        )
        try:
            async with asyncio.TaskGroup() as group:
                beside = [
                    group.create_task(self._journal.follow()),
                    group.create_task(self._attachments.follow()),
                ]
                calls = Calls(path, group, lambda: self._rearm(calls))
                ending = group.create_task(self._drained(calls))
                try:
                    return await self._until_rest(calls)
                finally:
                    calls.cancel()
                    for task in (*beside, ending):
                        task.cancel()
        except BaseExceptionGroup as errors:
            raise sole(errors) from None

    async def _until_rest(self, calls: Calls) -> tuple[Happening, str]:
        try:
            async with self._quiet.clock() as idle:
                events = self._hands.brain.events(self._work)
                async with contextlib.aclosing(events):
                    async for event in events:
                        self._take(event, calls)
        except TimeoutError:
            if not idle.expired():
                raise
            if self._quiet.turn_open:
                return Happening.STOPPED, HOST_STOPPED
            return Happening.IDLE, ""
        return Happening.ENDED, "the brain ended it"

    def _take(self, event: BrainEvent, calls: Calls) -> None:
        match event:
            case ToolCalled():
                self._take_call(event.call, calls)
                self._rearm(calls)
            case ToolSettled():
                calls.settled(event.tool_use_id)
                self._take_end(event.tool_use_id)
                entry = self._open.pop(event.tool_use_id, None)
                if entry is not None and not calls.took(event.tool_use_id):
                    self._journal.later(functools.partial(self._settle_former, entry))
            case ToolConfirmed():
                calls.confirmed(event)
                self._rearm(calls)
            case Interrupted():
                self._hands.metrics.interrupt()
                calls.interrupted(event)
                self._journal.note("session.interrupted", thread_id=event.thread_id)
            case TurnRunning() | TurnIdle():
                self._take_turn(event)
                self._rearm(calls)
            case SessionChanged():
                self._journal.note("session.changed")
                self._quiet.outdated = True
                self._rearm(calls)
            case BrainUnreached() | BrainReached():
                self._take_way(event, calls)
            case BrainSessionEnded():
                pass

    def _take_way(self, event: BrainUnreached | BrainReached, calls: Calls) -> None:
        if self._quiet.reached(isinstance(event, BrainReached)):
            self._rearm(calls)
        if isinstance(event, BrainUnreached):
            self._journal.waits(WaitingKind.BRAIN, event.reason, name=AWAY)
        else:
            self._journal.waits_no_more(WaitingKind.BRAIN, name=AWAY)

    def _take_call(self, call: ToolCall, calls: Calls) -> None:
        if call.name not in READ_ONLY:
            self._may_write.add(call.id)
        calls.called(call)

    def _take_end(self, tool_use_id: str) -> None:
        """Tell those who wait for the end of a call."""
        self._attachments.touch()
        if self._notices.went_with(tool_use_id):
            self._journal.later(functools.partial(self._notices.settled, tool_use_id))
        if tool_use_id in self._may_write:
            self._may_write.discard(tool_use_id)
            self._hands.written(self._known().sandbox_id)

    def _take_turn(self, event: TurnRunning | TurnIdle) -> None:
        self._quiet.take(event)
        if isinstance(event, TurnIdle) and not self._quiet.turn_open:
            self._journal.note("turn.ended", stop_reason=event.stop_reason)

    def _rearm(self, calls: Calls) -> None:
        self._quiet.rearm(busy=calls.busy, draining=self._hands.drain.begun.is_set())

    async def _drained(self, calls: Calls) -> None:
        """Once serving ends: begin no call, rest when none runs, cut those that run too long."""
        drain = self._hands.drain
        await drain.begun.wait()
        calls.close()
        self._rearm(calls)
        await drain.over.wait()
        calls.cancel()

    async def _settle_former(self, entry: LedgerEntry) -> None:
        """End the trace of a call of a former run that the brain has an answer for."""
        refused = "" if entry.state == "stored" else "answered or interrupted before our result"
        await self._hands.store.ledger.settle(
            entry.session_id, entry.tool_use_id, self._hands.clock(), refused=refused
        )

    async def _rest(self, happening: Happening, reason: str) -> None:
        await self._move(happening, reason)
        self._rests = True
        self._hands.backoff.rested(self._work.session_id)
        self._hands.stops.discard(self._work.session_id)
        await self._journal.flush()

    async def _end(self, happening: Happening, reason: str) -> None:
        """Write down an end that came from outside; the lease is gone or let go."""
        try:
            if self._session is None:
                self._session = await self._former()
            if self._session is None:
                self._log.info("work item not served", work=self._work.id, reason=reason)
                return
            await self._move(happening, reason)
            await self._journal.flush()
        except HandiworkError as error:
            self._log.warning("end not written down", reason=reason, error=str(error))

    async def _move(self, happening: Happening, reason: str = "") -> None:
        """Make one move of the table: its commands first, then the state that they lead to."""
        session = self._known()
        move = step(session.state, happening)
        if Command.SLEEP in move.commands:
            await self._free_sandbox()
        if Command.CLOSE in move.commands and session.sandbox_id:
            await self._hands.sandboxes.close(session.sandbox_id)
        if move.state in _WAITS_FOR_NOTHING:
            self._journal.waits_no_more()
        kept = session.reason if move.state is session.state else ""
        self._session = msgspec.structs.replace(
            self._known(),
            state=move.state,
            reason=reason or kept,
            waiting=self._journal.waiting,
            updated_at=self._hands.clock(),
        )
        await self._hands.store.sessions.save(self._session)
        self._journal.note(f"session.{move.state.value}", reason=self._session.reason)

    def _waiting_changed(self) -> None:
        self._hands.metrics.waits(self._work.served_as, self._journal.waiting)
        if not self._unsaved:
            self._unsaved = True
            self._journal.later(self._keep_waiting)

    def _result_refused(self, call: ToolCall, reason: str) -> None:
        """Keep the last few with the session, for the operator."""
        one = RefusedResult(
            tool_use_id=call.id, tool=call.name, reason=reason, at=self._hands.clock()
        )
        known = self._known()
        kept = (*known.refused_results, one)[-MAX_REFUSED_RESULTS:]
        self._session = msgspec.structs.replace(known, refused_results=kept)
        self._waiting_changed()

    async def _keep_waiting(self) -> None:
        self._unsaved = False
        self._session = msgspec.structs.replace(self._known(), waiting=self._journal.waiting)
        await self._hands.store.sessions.save(self._session)

    async def _free_sandbox(self) -> None:
        """Put the sandbox to sleep; what fails is told, and the files stay where they are."""
        sandbox_id = self._session.sandbox_id if self._session else ""
        if not sandbox_id:
            return
        try:
            async with asyncio.timeout(self._hands.settings.stop_seconds):
                drains = self._hands.drain.begun.is_set()
                await self._hands.sandboxes.rest(sandbox_id, long=not drains)
            return
        except TimeoutError:
            self._hands.sandboxes.rest_unused(sandbox_id)
            reason = "it is held, by a snapshot of it perhaps; it sleeps after"
        except HandiworkError as error:
            reason = str(error)
        self._journal.note("sandbox.not_asleep", sandbox_id=sandbox_id, reason=reason)
        self._log.warning("sandbox not put to sleep", sandbox=sandbox_id, reason=reason)

    def _known(self) -> Session:
        if self._session is None:
            raise HandiworkError("the session was not loaded")
        return self._session

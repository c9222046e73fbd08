"""The tool calls of one session: each runs at most once, and its result is never computed twice.

A call goes: durable start, run, then durable result and post side by side, settle. Only the last
is off the path.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Container
from dataclasses import dataclass, field
from datetime import datetime

from handiwork.brains.history import Interrupts
from handiwork.brains.protocol import Brain
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    ConflictError,
    ToolFailedError,
)
from handiwork.model.session import Interrupted, ToolConfirmed, WaitingKind, WorkItem
from handiwork.model.tool import Permission, ToolCall, ToolResult, text_result
from handiwork.observe.metrics import Metrics
from handiwork.sessions.journal import Journal
from handiwork.sessions.stragglers import Stragglers
from handiwork.store.protocol import Ledger
from handiwork.tools.toolset import Toolset

PARALLEL_CALLS = 8
"""So many calls of one session run at once, unless the settings say otherwise."""

MAX_EARLY_CONFIRMATIONS = 1000

SLOW_POST_SECONDS = 2.0
"""A post that takes longer is told."""

REPOST_SECONDS = (1.0, 30.0)
"""First and longest pause before a result that could not be posted is tried again."""

CUT_SHORT = "interrupted by a restart; its effects may be partial"
INTERRUPTED = "interrupted by the user"
ANSWERED = "answered by somebody else"


@dataclass(slots=True, kw_only=True, eq=False)
class _UnderWay:
    """A call that this run is answering. `dropped` says why its answer is not wanted any more."""

    call: ToolCall
    task: asyncio.Task[None] | None = None
    posting: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    dropped: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPath:
    """What a call passes through on its way.

    `former` are the calls that a former run left unanswered: they are this host's to answer,
    whatever it serves today. `refused` is told of results that the brain refused for good.
    """

    work: WorkItem
    brain: Brain
    ledger: Ledger
    toolset: Toolset
    journal: Journal
    clock: Callable[[], datetime]
    former: Container[str] = frozenset()
    parallel_calls: int = PARALLEL_CALLS
    stragglers: Stragglers = field(default_factory=Stragglers)
    metrics: Metrics = field(default_factory=Metrics)
    refused: Callable[[ToolCall, str], None] = lambda _call, _reason: None


class Calls:
    """Runs the calls of a session in tasks of `group`. `rested` is called when none is left."""

    def __init__(
        self, path: CallPath, group: asyncio.TaskGroup, rested: Callable[[], None]
    ) -> None:
        self._path = path
        self._group = group
        self._rested = rested
        self._seen: set[str] = set()
        # Answered at the brain: told late or twice, such a call is not begun.
        self._over: set[str] = set()
        self._held: dict[str, ToolCall] = {}
        self._unserved: dict[str, ToolCall] = {}
        self._early: dict[str, ToolConfirmed] = {}
        self._under_way: dict[str, _UnderWay] = {}
        self._interrupts = Interrupts()
        self._closed = False
        self._slots = asyncio.Semaphore(path.parallel_calls)
        self._lanes: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def busy(self) -> bool:
        """Say whether a call runs, waits for its turn, or owes the brain its result."""
        return bool(self._under_way)

    def took(self, tool_use_id: str) -> bool:
        """Say whether the call is this run's to answer, so that its own path settles it."""
        return tool_use_id in self._seen

    def called(self, call: ToolCall) -> None:
        """Take a call in: run it, hold it, or leave it to others. Twice is once."""
        if call.id in self._seen or call.id in self._over:
            return
        self._seen.add(call.id)
        if not self._path.toolset.serves(call) and call.id not in self._path.former:
            self._note("tool.unserved", call, custom=call.custom)
            self._path.metrics.call(call.name, "unserved")
            self._unserved[call.id] = call
            self._waits(WaitingKind.UNSERVED_TOOL, call, "nobody here serves this tool")
        elif self._interrupts.covers(call):
            self._never(call)
        elif call.permission is Permission.ALLOW:
            self._begin(call)
        elif call.permission is Permission.DENY:
            self._note("tool.denied", call)
            self._path.metrics.call(call.name, "denied")
        else:
            self._hold(call)

    def _hold(self, call: ToolCall) -> None:
        self._note("tool.held", call, permission=call.permission.value)
        self._held[call.id] = call
        self._waits(WaitingKind.CONFIRMATION, call, _why_held(call))
        early = self._early.pop(call.id, None)
        if early is not None:
            self.confirmed(early)

    def confirmed(self, event: ToolConfirmed) -> None:
        """Run a held call, or drop it; a confirmation that comes first is kept."""
        call = self._held.pop(event.tool_use_id, None)
        if call is None:
            if event.tool_use_id not in self._seen and len(self._early) < MAX_EARLY_CONFIRMATIONS:
                self._early[event.tool_use_id] = event
            return
        self._waits_no_more(call.id)
        if event.allowed:
            self._note("tool.confirmed", call)
            self._begin(call)
        else:
            self._note("tool.rejected", call)
            self._path.metrics.call(call.name, "denied")

    def interrupted(self, event: Interrupted) -> None:
        """Cancel what the user interrupted; it is settled and never runs again."""
        self._interrupts.add(event)
        for one in list(self._under_way.values()):
            if _covers(event, one.call):
                self._drop(one, INTERRUPTED, "tool.cancelled")
        for call in [call for call in self._held.values() if _covers(event, call)]:
            del self._held[call.id]
            self._never(call)
        for call in [call for call in self._unserved.values() if _covers(event, call)]:
            del self._unserved[call.id]
            self._waits_no_more(call.id)

    def settled(self, tool_use_id: str) -> None:
        """Take in that the brain has an answer: ours, another's, or that of an interrupt."""
        self._over.add(tool_use_id)
        for kept in (self._held, self._early, self._unserved):
            kept.pop(tool_use_id, None)
        self._waits_no_more(tool_use_id)
        one = self._under_way.get(tool_use_id)
        if one is not None and one.posting:
            one.answered.set()
        elif one is not None:
            self._drop(one, ANSWERED, "tool.answered_elsewhere")

    def close(self) -> None:
        """Begin nothing more: what has not started stays the brain's to ask for again."""
        self._closed = True

    def cancel(self) -> None:
        """Cancel all that runs."""
        for one in self._under_way.values():
            if one.task is not None:
                one.task.cancel()

    def _begin(self, call: ToolCall) -> None:
        if self._closed:
            return
        one = self._under_way[call.id] = _UnderWay(call=call)
        one.task = self._group.create_task(self._answer(one), name=call.id)
        one.task.add_done_callback(lambda _: self._ended(call.id))

    def _ended(self, tool_use_id: str) -> None:
        del self._under_way[tool_use_id]
        self._waits_no_more(tool_use_id, WaitingKind.BRAIN)
        if not self._under_way:
            self._rested()

    def _drop(self, one: _UnderWay, reason: str, kind: str) -> None:
        """Cancel a call and settle it at once: how long the tool cleans up changes nothing."""
        if one.dropped or one.task is None:
            return
        one.dropped = reason
        one.task.cancel()
        self._note(kind, one.call)
        self._path.metrics.call(one.call.name, "interrupted")
        self._group.create_task(self._settle_unwanted(one.call, reason))

    def _never(self, call: ToolCall) -> None:
        self._note("tool.cancelled", call)
        self._path.metrics.call(call.name, "interrupted")
        self._waits_no_more(call.id)
        self._group.create_task(self._settle_unwanted(call, INTERRUPTED))

    async def _settle_unwanted(self, call: ToolCall, reason: str) -> None:
        """Leave a trace even of a call that never started, so that no later run starts it."""
        with contextlib.suppress(ConflictError):
            await self._path.ledger.start(call, self._path.clock())
        await self._settle(call, reason)

    async def _answer(self, one: _UnderWay) -> None:
        try:
            await self._answer_wanted(one)
        except asyncio.CancelledError:
            if not one.dropped:
                raise

    async def _answer_wanted(self, one: _UnderWay) -> None:
        """Run, then store and post side by side: a post that is lost finds the result stored.

        A crash between the two leaves either a stored result to post again, or an answer that the
        brain has already; nothing is run again in either case.
        """
        call = one.call
        lane = self._path.toolset.lane(call)
        turn = contextlib.nullcontext() if lane is None else self._lanes[lane]
        # The turn first: calls that wait for theirs leave the slots to other threads.
        async with turn, self._slots:
            if self._closed:
                return
            result, kept = await self._result(call)
        if result is None:
            return
        one.posting = True
        async with asyncio.TaskGroup() as both:
            if not kept:
                both.create_task(
                    self._path.ledger.store(call.session_id, result, self._path.clock())
                )
            posting = both.create_task(self._post(one, result))
        refused = posting.result()
        self._path.journal.later(lambda: self._settle(call, refused))

    async def _result(self, call: ToolCall) -> tuple[ToolResult | None, bool]:
        """Return the result of a call, fresh or of a former run, and whether it is stored."""
        path = self._path
        started = path.clock()
        try:
            await path.ledger.start(call, started)
        except ConflictError:
            return await self._former(call)
        self._note("tool.started", call)
        path.metrics.call_began()
        try:
            result = await path.stragglers.run(path.toolset.run(call), call.id)
        except ToolFailedError as error:
            result = text_result(call, f"handiwork: {error}", is_error=True)
        finally:
            seconds = round((path.clock() - started).total_seconds(), 6)
            path.metrics.call_ended(call.name, seconds)
            path.metrics.straggling(len(path.stragglers))
        self._note("tool.finished", call, is_error=result.is_error, seconds=seconds)
        path.metrics.call(call.name, "error" if result.is_error else "ok")
        return result, False

    async def _former(self, call: ToolCall) -> tuple[ToolResult | None, bool]:
        """Answer for a call that a former run started: its result, or that it was cut short."""
        entry = await self._path.ledger.get(call.session_id, call.id)
        if entry is None:
            return None, True
        if entry.state == "refused":
            self._unanswered(call, "as a former run of ours was told")
            return None, True
        if entry.result is not None:
            self._note("tool.posted_again", call)
            return entry.result, True
        result = text_result(call, CUT_SHORT, is_error=True)
        await self._path.ledger.store(call.session_id, result, self._path.clock())
        self._note("tool.cut_short", call)
        self._path.metrics.call(call.name, "cut_short")
        return result, True

    async def _post(self, one: _UnderWay, result: ToolResult) -> str:
        """Post until the brain has it; return why it was refused for good, empty when it was not.

        It ends with the lease at the latest: who loses it is cancelled.
        """
        call, (pause, longest) = one.call, REPOST_SECONDS
        while True:
            try:
                await self._post_once(call, result)
                self._path.metrics.post("taken")
                return ""
            except BrainRefusedError as error:
                # One whose former post was taken without our learning of it.
                if one.answered.is_set():
                    return ""
                self._refused(call, str(error))
                await self._answer_instead(call, str(error))
                return str(error)
            except BrainUnavailableError as error:
                self._note("tool.result_not_posted", call, reason=str(error))
                self._path.metrics.post("retried")
                self._waits(WaitingKind.BRAIN, call, f"its result cannot be posted: {error}")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await one.answered.wait()
                return ""
            pause = min(pause * 2, longest)

    async def _answer_instead(self, call: ToolCall, reason: str) -> None:
        """Tell the brain that there is a result which it does not take: else it waits for ever."""
        text = (
            f"handiwork: the result of this call was refused ({reason}); it ran, its effects stand"
        )
        try:
            await self._post_once(call, text_result(call, text, is_error=True))
        except (BrainRefusedError, BrainUnavailableError):
            self._unanswered(call, reason)

    def _unanswered(self, call: ToolCall, reason: str) -> None:
        """The brain waits for it until it is interrupted, and only somebody who is told can do that."""
        self._unserved[call.id] = call
        text = f"its result was refused for good, {reason}: interrupt the session to go on"
        self._waits(WaitingKind.REFUSED_RESULT, call, text)

    async def _post_once(self, call: ToolCall, result: ToolResult) -> None:
        slow = asyncio.get_running_loop().call_later(
            SLOW_POST_SECONDS,
            lambda: self._waits(WaitingKind.BRAIN, call, "its result is not posted yet"),
        )
        try:
            await self._path.brain.post(self._path.work, result)
        finally:
            slow.cancel()

    def _refused(self, call: ToolCall, reason: str) -> None:
        self._note("tool.result_refused", call, reason=reason)
        self._path.metrics.post("refused")
        self._path.refused(call, reason)

    async def _settle(self, call: ToolCall, refused: str) -> None:
        at = self._path.clock()
        await self._path.ledger.settle(call.session_id, call.id, at, refused=refused)

    def _waits(self, kind: WaitingKind, call: ToolCall, reason: str) -> None:
        self._path.journal.waits(kind, reason, name=call.name, tool_use_id=call.id)

    def _waits_no_more(self, tool_use_id: str, kind: WaitingKind | None = None) -> None:
        self._path.journal.waits_no_more(kind, tool_use_id=tool_use_id)

    def _note(self, kind: str, call: ToolCall, **data: object) -> None:
        self._path.journal.note(kind, tool=call.name, tool_use_id=call.id, **data)


def _covers(event: Interrupted, call: ToolCall) -> bool:
    same_thread = event.thread_id in ("", call.thread_id)
    return same_thread and (call.processed_at is None or call.processed_at <= event.processed_at)


def _why_held(call: ToolCall) -> str:
    if call.permission is Permission.UNKNOWN:
        return "the brain's verdict on it is not known to us; somebody must confirm it"
    judged = f" ({call.evaluation})" if call.evaluation else ""
    return f"somebody must confirm it{judged}"

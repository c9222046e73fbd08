"""The tool calls of one session: each runs at most once, and its result is never computed twice.

A call goes: durable start, run, then durable result and post side by side, settle. Only the last
is off the path.
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from handiwork.brains.protocol import Brain
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    ConflictError,
    NotFoundError,
)
from handiwork.model.session import Interrupted, ToolConfirmed, WorkItem
from handiwork.model.tool import Permission, ToolCall, ToolResult, text_result
from handiwork.sessions.journal import Journal
from handiwork.store.protocol import Ledger
from handiwork.tools.toolset import Toolset

PARALLEL_CALLS = 8
"""So many calls of one session run at once."""

MAX_EARLY_CONFIRMATIONS = 1000

CUT_SHORT = "interrupted by a restart; its effects may be partial"
_INTERRUPTED = "interrupted by the user"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    call: ToolCall
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPath:
    """What a call passes through on its way."""

    work: WorkItem
    brain: Brain
    ledger: Ledger
    toolset: Toolset
    journal: Journal
    clock: Callable[[], datetime]


class Calls:
    """Runs the calls of a session in tasks of `group`. `rested` is called when none is left."""

    def __init__(
        self, path: CallPath, group: asyncio.TaskGroup, rested: Callable[[], None]
    ) -> None:
        self._path = path
        self._group = group
        self._rested = rested
        self._seen: set[str] = set()
        self._held: dict[str, ToolCall] = {}
        self._early: dict[str, ToolConfirmed] = {}
        self._running: dict[str, _Running] = {}
        self._slots = asyncio.Semaphore(PARALLEL_CALLS)
        self._lanes: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def busy(self) -> bool:
        """Say whether a call runs or waits for its turn."""
        return bool(self._running)

    def took(self, tool_use_id: str) -> bool:
        """Say whether the call is this run's to answer, so that its own path settles it."""
        return tool_use_id in self._seen

    def called(self, call: ToolCall) -> None:
        """Take a call in: run it, hold it, or leave it to others. Twice is once."""
        if call.id in self._seen:
            return
        self._seen.add(call.id)
        if not self._path.toolset.serves(call):
            self._note("tool.unserved", call, custom=call.custom)
        elif call.permission is Permission.ALLOW:
            self._begin(call)
        elif call.permission is Permission.DENY:
            self._note("tool.denied", call)
        else:
            self._note("tool.held", call, permission=call.permission.value)
            self._held[call.id] = call
            early = self._early.pop(call.id, None)
            if early is not None:
                self.confirmed(early)

    def confirmed(self, event: ToolConfirmed) -> None:
        """Run a held call, or drop it; a confirmation that comes first is kept."""
        call = self._held.pop(event.tool_use_id, None)
        if call is None:
            if event.tool_use_id not in self._seen and len(self._early) < MAX_EARLY_CONFIRMATIONS:
                self._early[event.tool_use_id] = event
        elif event.allowed:
            self._note("tool.confirmed", call)
            self._begin(call)
        else:
            self._note("tool.rejected", call)

    def interrupted(self, event: Interrupted) -> None:
        """Cancel what the user interrupted; it is settled and never runs again."""
        for one in list(self._running.values()):
            if _covers(event, one.call):
                one.task.cancel()
                self._note("tool.cancelled", one.call)
                self._group.create_task(self._settle_cancelled(one))
        for call in list(self._held.values()):
            if _covers(event, call):
                del self._held[call.id]

    def settled(self, tool_use_id: str) -> None:
        """Take in that the brain has an answer."""
        self._held.pop(tool_use_id, None)

    def cancel(self) -> None:
        """Cancel all that runs."""
        for one in self._running.values():
            one.task.cancel()

    def _begin(self, call: ToolCall) -> None:
        task = self._group.create_task(self._answer(call), name=call.id)
        self._running[call.id] = _Running(call=call, task=task)
        task.add_done_callback(lambda _: self._ended(call.id))

    def _ended(self, tool_use_id: str) -> None:
        del self._running[tool_use_id]
        if not self._running:
            self._rested()

    async def _answer(self, call: ToolCall) -> None:
        """Run, then store and post side by side: a post that is lost finds the result stored.

        A crash between the two leaves either a stored result to post again, or an answer that the
        brain has already; nothing is run again in either case.
        """
        lane = self._path.toolset.lane(call)
        turn = contextlib.nullcontext() if lane is None else self._lanes[lane]
        async with self._slots, turn:
            result, kept = await self._result(call)
        if result is None:
            return
        async with asyncio.TaskGroup() as both:
            if not kept:
                both.create_task(self._path.ledger.store(result, self._path.clock()))
            posting = both.create_task(self._post(call, result))
        refused = posting.result()
        if refused is not None:
            self._path.journal.later(lambda: self._settle(call.id, refused))

    async def _result(self, call: ToolCall) -> tuple[ToolResult | None, bool]:
        """Return the result of a call, fresh or of a former run, and whether it is stored."""
        path = self._path
        started = path.clock()
        try:
            await path.ledger.start(call, started)
        except ConflictError:
            return await self._former(call)
        self._note("tool.started", call)
        result = await path.toolset.run(call)
        seconds = round((path.clock() - started).total_seconds(), 6)
        self._note("tool.finished", call, is_error=result.is_error, seconds=seconds)
        return result, False

    async def _former(self, call: ToolCall) -> tuple[ToolResult | None, bool]:
        """Answer for a call that a former run started: its result, or that it was cut short."""
        entry = await self._path.ledger.get(call.id)
        if entry is None or entry.state == "refused":
            return None, True
        if entry.result is not None:
            self._note("tool.posted_again", call)
            return entry.result, True
        result = text_result(call, CUT_SHORT, is_error=True)
        await self._path.ledger.store(result, self._path.clock())
        self._note("tool.cut_short", call)
        return result, True

    async def _post(self, call: ToolCall, result: ToolResult) -> str | None:
        """Return why the brain refused it, empty when it did not; None when it is still owed."""
        try:
            await self._path.brain.post(self._path.work, result)
        except BrainRefusedError as error:
            self._note("tool.result_refused", call, reason=str(error))
            return str(error)
        except BrainUnavailableError as error:
            self._note("tool.result_not_posted", call, reason=str(error))
            self._seen.discard(call.id)
            return None
        return ""

    async def _settle(self, tool_use_id: str, refused: str) -> None:
        await self._path.ledger.settle(tool_use_id, self._path.clock(), refused=refused)

    async def _settle_cancelled(self, one: _Running) -> None:
        await asyncio.wait([one.task])
        # A call that never started has no trace to settle.
        with contextlib.suppress(NotFoundError):
            await self._settle(one.call.id, _INTERRUPTED)

    def _note(self, kind: str, call: ToolCall, **data: object) -> None:
        self._path.journal.note(kind, tool=call.name, tool_use_id=call.id, **data)


def _covers(event: Interrupted, call: ToolCall) -> bool:
    same_thread = event.thread_id in ("", call.thread_id)
    return same_thread and (call.processed_at is None or call.processed_at <= event.processed_at)

"""Calls, ledger, lease and lifecycle under any order of events, answers, crashes and restarts.

Everything outside is a gate: an operation waits there until a rule lets it go, before and after
its effect, so that a crash can come between any two. Time is a number that rules move on.
"""

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from handiwork.brains.history import History, Interrupts
from handiwork.brains.lease import Beat, Held, Lease
from handiwork.config import SessionSettings
from handiwork.model.errors import BrainRefusedError, BrainUnavailableError
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.session import (
    BrainEvent,
    Interrupted,
    SessionState,
    ToolCalled,
    ToolConfirmed,
    ToolSettled,
    WorkItem,
)
from handiwork.model.tool import Permission, ToolCall, ToolResult, text_result
from handiwork.observe.metrics import Metrics
from handiwork.sessions import calls as module
from handiwork.sessions.attachments import Sources
from handiwork.sessions.calls import CallPath, Calls
from handiwork.sessions.drain import Drain
from handiwork.sessions.lifecycle import Happening, step
from handiwork.sessions.runner import Hands, _Run, nobody
from handiwork.store.database import PENDING_WRITES, Database
from handiwork.store.sqlite import MIGRATIONS
from handiwork.store.sqlite_ledger import SqliteLedger
from handiwork.testing.store import MemorySessions

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
TTL = 10.0
THREADS = ("", "one", "two")
CALM_TURNS = 12
"""So many turns of the loop without a write on its way: all have come to their gates."""


class Outside:
    """What outlives a crash: the brain's log and answers, the ledger, and how often a tool ran."""

    def __init__(self, session_id: str, ledger: SqliteLedger) -> None:
        self.session_id = session_id
        self.ledger = ledger
        self.log: list[BrainEvent] = []
        self.calls: dict[str, ToolCall] = {}
        self.answers: dict[str, str] = {}
        self.refused_for_good: set[str] = set()
        self.interrupts = Interrupts()
        self.allowed: set[str] = set()
        self.runs: Counter[str] = Counter()
        self.stored: dict[str, ToolResult] = {}
        self.reading = 0

    def take(self, result: ToolResult) -> None:
        """Take a result as the brain does: once, and none for what is settled."""
        id_ = result.tool_use_id
        if id_ in self.answers or id_ in self.refused_for_good:
            raise BrainRefusedError("400: this call takes no result")
        self.answers[id_] = "ours"
        self.log.append(ToolSettled(tool_use_id=id_))

    def pending(self) -> list[BrainEvent]:
        history = History()
        for event in self.log:
            history.add(event)
        return history.pending()


class Run:
    """One life of the engine: it ends by a crash or with its lease."""

    def __init__(self, outside: Outside, clock: Callable[[], datetime], lease: Lease) -> None:
        self.outside = outside
        self.lease = lease
        self.gates: list[tuple[str, str, asyncio.Future[str]]] = []
        self.refused: set[str] = set()
        self.over = False
        store = SimpleNamespace(ledger=self, sessions=MemorySessions())
        work = WorkItem(id="w", environment_id="e", kind="session", session_id=outside.session_id)
        hands = SimpleNamespace(
            store=store,
            clock=clock,
            metrics=Metrics(),
            sources=Sources(),
            settings=SessionSettings(),
            drain=Drain(),
            written=nobody,
        )
        self.run_ = _Run(cast("Hands", hands), work)
        self.run_._session = cast("Any", SimpleNamespace(sandbox_id="sbx_1"))
        self.journal = self.run_._journal
        self.journal._changed = lambda: None
        self.clock = clock
        self.calls: Calls | None = None

    async def live(self, ready: asyncio.Event) -> None:
        entries = await self.outside.ledger.open(self.outside.session_id)
        self.run_._open = {entry.tool_use_id: entry for entry in entries}
        path = CallPath(
            work=self.run_._work,
            brain=cast("Any", self),
            ledger=cast("Any", self),
            toolset=self,
            journal=self.journal,
            clock=self.clock,
            former=self.run_._open,
            parallel_calls=3,
        )
        async with asyncio.TaskGroup() as group:
            self.calls = Calls(path, group, lambda: None)
            ready.set()
            await asyncio.get_running_loop().create_future()

    async def gate(self, kind: str, id_: str) -> str:
        assert not self.over, f"{kind} of {id_} after the end of its run"
        wait = asyncio.get_running_loop().create_future()
        self.gates.append((kind, id_, wait))
        try:
            return await wait
        finally:
            self.gates = [one for one in self.gates if one[2] is not wait]

    async def gated(self, kind: str, id_: str, effect: Callable[[], Awaitable[Any]]) -> Any:
        await self.gate(f"before {kind}", id_)
        result = await effect()
        await self.gate(f"after {kind}", id_)
        return result

    # --- the ports of `Calls` ---

    async def start(self, call: ToolCall, at: datetime) -> Any:
        return await self.gated("start", call.id, lambda: self.outside.ledger.start(call, at))

    async def store(self, session_id: str, result: ToolResult, at: datetime) -> None:
        async def stored() -> None:
            await self.outside.ledger.store(session_id, result, at)
            self.outside.stored[result.tool_use_id] = result

        await self.gated("store", result.tool_use_id, stored)

    async def settle(
        self, session_id: str, tool_use_id: str, at: datetime, *, refused: str = ""
    ) -> None:
        ledger = self.outside.ledger
        await self.gated(
            "settle",
            tool_use_id,
            lambda: ledger.settle(session_id, tool_use_id, at, refused=refused),
        )

    async def get(self, session_id: str, tool_use_id: str) -> Any:
        self.outside.reading += 1
        try:
            return await self.outside.ledger.get(session_id, tool_use_id)
        finally:
            self.outside.reading -= 1

    def serves(self, call: ToolCall) -> bool:
        return call.name == "ours"

    def lane(self, call: ToolCall) -> str | None:
        return call.thread_id or None

    async def run(self, call: ToolCall) -> ToolResult:
        self.outside.runs[call.id] += 1
        await self.gate("run", call.id)
        return text_result(call, f"{call.id} by run {self.outside.runs[call.id]}")

    async def post(self, work: WorkItem, result: ToolResult) -> None:
        self.check_posted(result)
        verdict = await self.gate("post", result.tool_use_id)
        assert self.lease.state is Held.OURS, "posted without the lease"
        if verdict == "down":
            raise BrainUnavailableError("503")
        if verdict == "refuse":
            self.outside.refused_for_good.add(result.tool_use_id)
        try:
            self.outside.take(result)
        except BrainRefusedError:
            self.refused.add(result.tool_use_id)
            raise
        if verdict == "lost":
            raise BrainUnavailableError("the answer was cut")
        await self.gate("answer", result.tool_use_id)

    def check_posted(self, result: ToolResult) -> None:
        """What is posted is what is stored; only once it was refused the brain is told that, instead."""
        kept = self.outside.stored.get(result.tool_use_id)
        (block,) = result.content
        if result.tool_use_id in self.refused:
            assert "it ran, its effects stand" in block.text
        else:
            assert kept in (None, result), "a result that was stored was computed anew"


class Machine(RuleBasedStateMachine):
    loop: asyncio.AbstractEventLoop
    ledger: SqliteLedger
    count = 0

    def __init__(self) -> None:
        super().__init__()
        Machine.count += 1
        self.outside = Outside(f"sesn_{Machine.count}", self.ledger)
        self.seconds = 0.0
        self.state: SessionState | None = None
        self.life: Run | None = None
        self.task: asyncio.Task[None] | None = None

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.seconds)

    def do(self, body: Awaitable[Any]) -> Any:
        async def settled() -> Any:
            result = await body
            await self.quiet()
            return result

        return self.loop.run_until_complete(settled())

    async def quiet(self) -> None:
        """Let everything come to its gate; the database answers from a thread of its own."""
        calm = 0
        while calm < CALM_TURNS:
            writing = self.ledger._database._places._value < PENDING_WRITES
            busy = writing or self.outside.reading
            calm = 0 if busy else calm + 1
            await asyncio.sleep(0.0002 if busy else 0)
        if self.task is not None and self.task.done() and not self.task.cancelled():
            self.task.result()

    def tell(self, event: BrainEvent) -> None:
        if self.life is not None and self.life.calls is not None:
            self.life.run_._take(event, self.life.calls)

    def happens(self, event: BrainEvent, *, told: bool) -> None:
        self.outside.log.append(event)

        async def tell() -> None:
            if told:
                self.tell(event)

        self.do(tell())

    # --- the brain and its users ---

    @precondition(lambda self: len(self.outside.calls) < 8)
    @rule(
        permission=st.sampled_from([*[Permission.ALLOW] * 4, *Permission]),
        thread=st.sampled_from(THREADS),
        ours=st.sampled_from([True] * 5 + [False]),
        told=st.booleans(),
    )
    def ask(self, permission: Permission, thread: str, ours: bool, told: bool) -> None:
        self.seconds += 0.001
        call = ToolCall(
            id=f"{self.outside.session_id}/{len(self.outside.calls)}",
            session_id=self.outside.session_id,
            name="ours" if ours else "theirs",
            input={},
            permission=permission,
            thread_id=thread,
            processed_at=self.now(),
        )
        self.outside.calls[call.id] = call
        if permission is Permission.ALLOW:
            self.outside.allowed.add(call.id)
        self.happens(ToolCalled(call=call), told=told)

    @rule(thread=st.sampled_from(THREADS), told=st.booleans())
    def interrupt(self, thread: str, told: bool) -> None:
        self.seconds += 0.001
        event = Interrupted(processed_at=self.now(), thread_id=thread)
        for call in self.outside.calls.values():
            if thread in ("", call.thread_id):
                self.outside.answers.setdefault(call.id, "interrupt")
        self.happens(event, told=told)

    @precondition(lambda self: self.outside.calls)
    @rule(data=st.data(), allowed=st.booleans(), told=st.booleans())
    def confirm(self, data: st.DataObject, allowed: bool, told: bool) -> None:
        held = [
            id_
            for id_, call in self.outside.calls.items()
            if call.permission in (Permission.ASK, Permission.UNKNOWN)
            and not any(
                isinstance(e, ToolConfirmed) and e.tool_use_id == id_ for e in self.outside.log
            )
        ]
        if held:
            id_ = data.draw(st.sampled_from(held))
            if allowed:
                self.outside.allowed.add(id_)
            self.happens(ToolConfirmed(tool_use_id=id_, allowed=allowed), told=told)
            # The brain itself answers a call that was rejected.
            if not allowed and self.outside.answers.setdefault(id_, "rejected") == "rejected":
                self.happens(ToolSettled(tool_use_id=id_), told=told)

    @precondition(lambda self: self.outside.calls)
    @rule(data=st.data(), told=st.booleans())
    def answered_by_another(self, data: st.DataObject, told: bool) -> None:
        id_ = data.draw(st.sampled_from(sorted(self.outside.calls)))
        if self.outside.answers.setdefault(id_, "another") == "another":
            self.happens(ToolSettled(tool_use_id=id_), told=told)

    @precondition(lambda self: self.life is not None and self.outside.log)
    @rule(data=st.data())
    def told_again_or_late(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.outside.log))

        async def tell() -> None:
            self.tell(event)

        self.do(tell())

    @precondition(lambda self: self.life is not None)
    @rule()
    def reconnect(self) -> None:
        async def tell() -> None:
            for event in self.outside.pending():
                self.tell(event)

        self.do(tell())

    # --- the engine ---

    @precondition(lambda self: self.life is None)
    @rule()
    def start(self) -> None:
        life = Run(self.outside, self.now, Lease(self.seconds))
        life.lease.beaten(_beat(), self.seconds)
        for happening in (Happening.CLAIMED, Happening.HELD, Happening.READY):
            self.state = step(self.state, happening).state

        async def start() -> None:
            ready = asyncio.Event()
            self.task = self.loop.create_task(life.live(ready))
            await ready.wait()
            self.life = life
            for event in self.outside.pending():
                self.tell(event)

        self.do(start())

    @precondition(lambda self: self.life is not None)
    @rule()
    def crash(self) -> None:
        self.end()
        self.state = step(self.state, Happening.LOST).state

    @precondition(lambda self: self.life is not None and self.life.gates)
    @rule(
        data=st.data(),
        verdict=st.sampled_from(["taken", "taken", "taken", "down", "lost", "refuse"]),
    )
    def goes_on(self, data: st.DataObject, verdict: str) -> None:
        assert self.life is not None
        which = data.draw(st.integers(0, len(self.life.gates) - 1))
        self.let_go(which, verdict)

    @precondition(lambda self: self.life is not None)
    @rule()
    def write_down(self) -> None:
        """Let the later writes go, as far as their gates."""
        assert self.life is not None
        self.flushing = self.loop.create_task(self.life.journal.flush())
        self.do(_nothing())
        while any("settle" in kind for kind, _, _ in self.life.gates):
            which = next(i for i, one in enumerate(self.life.gates) if "settle" in one[0])
            self.let_go(which, "taken")
        self.do(self.flushing)

    @precondition(lambda self: self.life is not None)
    @rule(seconds=st.floats(0, 2 * TTL), beat=st.sampled_from(["good", "none", "foreign"]))
    def time_passes(self, seconds: float, beat: str) -> None:
        assert self.life is not None
        self.seconds += seconds
        lease = self.life.lease
        if beat == "foreign":
            lease.mismatched()
        elif beat == "good" and seconds < TTL:
            lease.beaten(_beat(), self.seconds)
        lease.silent(self.seconds)
        if lease.state is Held.LOST:
            self.end()
            self.state = step(self.state, Happening.LOST).state

    def let_go(self, which: int, verdict: str) -> None:
        async def release() -> None:
            assert self.life is not None
            self.life.gates[which][2].set_result(verdict)

        self.do(release())

    def end(self) -> None:
        """Cancel the run as a lost lease does; a crash is that without any further effect."""
        life, task = self.life, self.task
        assert life is not None
        assert task is not None
        life.over = True

        async def ended() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.do(ended())
        assert not life.gates, f"goes on without its lease: {life.gates}"
        self.life = self.task = None

    # --- what holds ---

    @invariant()
    def nothing_runs_twice_or_unasked(self) -> None:
        assert not [id_ for id_, count in self.outside.runs.items() if count > 1]
        assert self.outside.runs.keys() <= self.outside.allowed

    @invariant()
    def what_is_stored_is_kept(self) -> None:
        for id_, result in self.outside.stored.items():
            entry = self.loop.run_until_complete(self.ledger.get(self.outside.session_id, id_))
            assert entry is not None
            assert entry.result == result

    def teardown(self) -> None:
        """Let the brain be reachable, and see every call come to its end or wait visibly."""
        if self.life is None:
            self.start()
        self.reconnect()
        assert self.life is not None
        for _ in range(1000):
            if not self.life.gates:
                break
            self.let_go(0, "taken")
        assert not self.life.gates
        self.write_down()
        self.reconnect()
        self.write_down()
        waiting = {one.tool_use_id for one in self.life.journal.waiting}
        for id_, call in self.outside.calls.items():
            entry = self.loop.run_until_complete(self.ledger.get(self.outside.session_id, id_))
            over = id_ in self.outside.answers or id_ in self.outside.refused_for_good
            assert over or id_ in waiting or call.permission is Permission.DENY, call
            assert not (id_ in self.outside.answers and id_ in waiting), call
            assert entry is None or entry.state in ("posted", "refused"), entry
            assert id_ not in self.outside.runs or entry is not None, call
        self.end()


async def _nothing() -> None:
    return None


def _beat() -> Beat:
    return Beat(last_heartbeat="x", lease_extended=True, state="active", ttl_seconds=TTL)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory in memory where there is one: thousands of commits wait for no disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as path:
        yield Path(path)


def test_whatever_happens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPOST_SECONDS", (0.0, 0.0))
    loop = asyncio.new_event_loop()
    with contextlib.closing(loop):
        database = loop.run_until_complete(Database.open(folder / "ledger.db", MIGRATIONS))
        Machine.loop, Machine.ledger = loop, SqliteLedger(database, DEFAULT_TENANT)
        try:
            run_state_machine_as_test(
                Machine,
                settings=settings(
                    max_examples=60,
                    stateful_step_count=40,
                    deadline=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            loop.run_until_complete(database.close())

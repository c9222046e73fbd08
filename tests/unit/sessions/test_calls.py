"""The path of one call, step by step; whole sessions are in `test_runner.py`."""

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from handiwork.model.errors import BrainRefusedError, BrainUnavailableError
from handiwork.model.session import (
    BrainSession,
    Interrupted,
    ToolConfirmed,
    WaitingKind,
    WorkItem,
)
from handiwork.model.tool import Permission, ToolCall, ToolResult, text_result
from handiwork.sessions import calls as module
from handiwork.sessions import stragglers
from handiwork.sessions.calls import PARALLEL_CALLS, CallPath, Calls
from handiwork.sessions.journal import Journal
from handiwork.testing.brain import FakeBrain
from handiwork.testing.store import MemoryStore
from session_world import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Steps:
    """A toolset that notes what happens around it, in order."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.ran: list[str] = []
        self.running = self.most = 0
        self.stubborn = False
        self.go = asyncio.Event()
        self.go.set()

    def serves(self, call: ToolCall) -> bool:
        return call.name == "ours"

    def lane(self, call: ToolCall) -> str | None:
        return call.thread_id or None

    async def run(self, call: ToolCall) -> ToolResult:
        self.order.append("run")
        self.ran.append(call.id)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            while not self.go.is_set():
                try:
                    await self.go.wait()
                except asyncio.CancelledError:
                    if not self.stubborn:
                        raise
        finally:
            self.running -= 1
        return text_result(call, "done")


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps()


def path(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> CallPath:
    """Everything in memory, each step of the path noted before it is taken."""
    store, brain = MemoryStore(), FakeBrain()
    brain.session(BrainSession(id="sesn_1", agent_id="a", agent_name="a"))
    for owner, name in ((store.ledger, "start"), (store.ledger, "store"), (brain, "post")):
        monkeypatch.setattr(owner, name, _noted(steps, name, getattr(owner, name)))
    monkeypatch.setattr(store.ledger, "settle", _noted(steps, "settle", store.ledger.settle))
    return CallPath(
        work=WorkItem(id="w", environment_id="e", kind="session", session_id="sesn_1"),
        brain=brain,
        ledger=store.ledger,
        toolset=steps,
        journal=Journal(store.sessions, "sesn_1", lambda: NOW),
        clock=lambda: NOW,
    )


def _noted(steps: Steps, name: str, method):
    async def noted(*args, **named):
        steps.order.append(name)
        return await method(*args, **named)

    return noted


def call(id_: str = "a", name: str = "ours", **more: object) -> ToolCall:
    return ToolCall(id=id_, session_id="sesn_1", name=name, input={}, **more)


def waiting(way: CallPath) -> list[tuple[WaitingKind, str, str]]:
    return [(one.kind, one.name, one.tool_use_id) for one in way.journal.waiting]


async def state(way: CallPath, id_: str = "a") -> str:
    await way.journal.flush()
    entry = await way.ledger.get("sesn_1", id_)
    return entry.state if entry else "absent"


async def test_the_steps_of_a_call_in_their_order(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = path(steps, monkeypatch)
    async with asyncio.TaskGroup() as group:
        Calls(way, group, lambda: None).called(call())
    await way.journal.flush()
    assert steps.order == ["start", "run", "store", "post", "settle"]


async def test_so_many_run_at_once(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    steps.go.clear()
    rests = list[bool]()
    async with asyncio.TaskGroup() as group:
        calls = Calls(path(steps, monkeypatch), group, lambda: rests.append(True))
        for number in range(PARALLEL_CALLS + 4):
            calls.called(call(str(number)))
        await asyncio.sleep(0.01)
        assert calls.busy
        assert steps.running == PARALLEL_CALLS
        steps.go.set()
    assert steps.most == PARALLEL_CALLS
    assert rests == [True]
    assert not calls.busy


async def test_calls_that_wait_for_their_turn_leave_the_slots_to_others(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.go.clear()
    async with asyncio.TaskGroup() as group:
        calls = Calls(path(steps, monkeypatch), group, lambda: None)
        for number in range(PARALLEL_CALLS):
            calls.called(call(f"slow {number}", thread_id="one"))
        calls.called(call("other", thread_id="two"))
        await asyncio.sleep(0.01)
        assert steps.ran == ["slow 0", "other"]
        steps.go.set()
    assert steps.ran[2:] == [f"slow {number}" for number in range(1, PARALLEL_CALLS)]


async def test_the_limit_of_calls_is_a_setting(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.go.clear()
    way = dataclasses.replace(path(steps, monkeypatch), parallel_calls=2)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        for number in range(5):
            calls.called(call(str(number)))
        await asyncio.sleep(0.01)
        steps.go.set()
    assert steps.most == 2


async def test_what_cannot_be_posted_waits_visibly_and_is_posted_when_it_can_be(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REPOST_SECONDS", (0.01, 0.01))
    way = path(steps, monkeypatch)
    post = way.brain.post

    async def down(work: WorkItem, result: ToolResult) -> None:
        raise BrainUnavailableError("503")

    monkeypatch.setattr(way.brain, "post", down)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        calls.called(call())
        await until(lambda: bool(way.journal.waiting))
        assert waiting(way) == [(WaitingKind.BRAIN, "ours", "a")]
        assert calls.busy
        monkeypatch.setattr(way.brain, "post", post)
    assert steps.order == ["start", "run", "store", "post"]
    assert way.journal.waiting == ()
    assert await state(way) == "posted"


async def test_a_post_that_takes_long_is_told(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SLOW_POST_SECONDS", 0.01)
    way, go = path(steps, monkeypatch), asyncio.Event()

    async def slow(work: WorkItem, result: ToolResult) -> None:
        await go.wait()

    monkeypatch.setattr(way.brain, "post", slow)
    async with asyncio.TaskGroup() as group:
        Calls(way, group, lambda: None).called(call())
        await until(lambda: bool(way.journal.waiting))
        go.set()
    assert way.journal.waiting == ()


async def test_a_result_whose_post_was_taken_unseen_is_not_posted_again(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = path(steps, monkeypatch)
    posts = list[str]()

    async def half(work: WorkItem, result: ToolResult) -> None:
        posts.append(result.tool_use_id)
        raise BrainUnavailableError("the answer was cut")

    monkeypatch.setattr(way.brain, "post", half)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        calls.called(call())
        await until(lambda: bool(posts))
        calls.settled("a")
    assert posts == ["a"]
    assert await state(way) == "posted"


async def test_a_refused_result_is_told_and_settled(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = list[tuple[str, str]]()
    way = dataclasses.replace(
        path(steps, monkeypatch), refused=lambda call, reason: told.append((call.id, reason))
    )

    async def refuse(work: WorkItem, result: ToolResult) -> None:
        raise BrainRefusedError("400: too late")

    monkeypatch.setattr(way.brain, "post", refuse)
    async with asyncio.TaskGroup() as group:
        Calls(way, group, lambda: None).called(call())
    assert told == [("a", "400: too late")]
    assert await state(way) == "refused"
    ((kind, reason),) = [(one.kind, one.reason) for one in way.journal.waiting]
    assert kind is WaitingKind.REFUSED_RESULT
    assert "400: too late" in reason


async def test_the_brain_is_told_of_a_result_that_it_refused(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts = list[ToolResult]()
    way = path(steps, monkeypatch)

    async def refuse_the_first(work: WorkItem, result: ToolResult) -> None:
        posts.append(result)
        if len(posts) == 1:
            raise BrainRefusedError("413: too large")

    monkeypatch.setattr(way.brain, "post", refuse_the_first)
    async with asyncio.TaskGroup() as group:
        Calls(way, group, lambda: None).called(call())
    assert [result.tool_use_id for result in posts] == ["a", "a"]
    assert posts[1].is_error
    assert "was refused (413: too large)" in str(posts[1].content)
    assert await state(way) == "refused"
    assert way.journal.waiting == ()


async def test_an_interrupt_ends_the_wait_for_a_result_that_was_refused(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = path(steps, monkeypatch)

    async def refuse(work: WorkItem, result: ToolResult) -> None:
        raise BrainRefusedError("400: no")

    monkeypatch.setattr(way.brain, "post", refuse)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        calls.called(call(processed_at=NOW))
        await until(lambda: bool(way.journal.waiting) and not calls.busy)
        calls.interrupted(Interrupted(processed_at=NOW))
    assert way.journal.waiting == ()


async def test_an_interrupt_does_not_wait_for_a_tool_that_ignores_it(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stragglers, "GRACE_SECONDS", 0.05)
    steps.go.clear()
    steps.stubborn = True
    way = dataclasses.replace(path(steps, monkeypatch), parallel_calls=1)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        calls.called(call(thread_id="one", processed_at=NOW))
        await until(lambda: steps.ran == ["a"])
        calls.interrupted(Interrupted(processed_at=NOW))
        for _ in range(3):
            await asyncio.sleep(0)
        assert await state(way) == "refused"
        await until(lambda: not calls.busy)
        assert len(way.stragglers) == 1
        # The slot and the turn are free, though the tool goes on.
        calls.called(call("b", thread_id="one"))
        await until(lambda: steps.ran == ["a", "b"])
        steps.go.set()
    assert steps.order.count("post") == 1
    assert await state(way, "b") == "posted"
    await until(lambda: len(way.stragglers) == 0)


async def test_an_interrupt_of_one_thread_leaves_the_others(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.go.clear()
    way = path(steps, monkeypatch)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        for id_, thread in (("a", "one"), ("b", "two"), ("c", "one")):
            calls.called(call(id_, thread_id=thread, processed_at=NOW))
        await until(lambda: steps.ran == ["a", "b"])
        calls.interrupted(Interrupted(processed_at=NOW, thread_id="one"))
        # It was processed after the interrupt, and so is not meant by it.
        calls.called(call("d", thread_id="one", processed_at=NOW + SECOND))
        steps.go.set()
    assert steps.ran == ["a", "b", "d"]
    assert [await state(way, id_) for id_ in "abcd"] == ["refused", "posted", "refused", "posted"]


async def test_an_interrupted_call_never_runs_however_late_it_is_told(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = path(steps, monkeypatch)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        calls.called(call("held", permission=Permission.ASK, processed_at=NOW))
        calls.interrupted(Interrupted(processed_at=NOW))
        calls.called(call("late", processed_at=NOW))
        calls.called(call("theirs", "theirs", processed_at=NOW))
        calls.interrupted(Interrupted(processed_at=NOW))
        calls.confirmed(ToolConfirmed(tool_use_id="held", allowed=True))
    assert steps.ran == []
    assert way.journal.waiting == ()
    async with asyncio.TaskGroup() as group:
        # A later run that does not see the interrupt finds the trace.
        again = Calls(way, group, lambda: None)
        again.called(call("held"))
        again.called(call("late"))
    assert steps.ran == []
    assert "post" not in steps.order


async def test_a_call_that_somebody_else_answers_is_cancelled(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps.go.clear()
    way = path(steps, monkeypatch)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        calls.called(call())
        await until(lambda: steps.ran == ["a"])
        calls.settled("a")
    assert steps.running == 0
    assert "post" not in steps.order
    assert await state(way) == "refused"


async def test_what_waits_for_a_person_or_for_another_is_told_until_it_is_over(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = path(steps, monkeypatch)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        calls.called(call("asks", permission=Permission.ASK, evaluation="indeterminate"))
        calls.called(call("odd", permission=Permission.UNKNOWN))
        calls.called(call("theirs", "theirs", custom=True))
        assert waiting(way) == [
            (WaitingKind.CONFIRMATION, "ours", "asks"),
            (WaitingKind.CONFIRMATION, "ours", "odd"),
            (WaitingKind.UNSERVED_TOOL, "theirs", "theirs"),
        ]
        assert "indeterminate" in way.journal.waiting[0].reason
        calls.confirmed(ToolConfirmed(tool_use_id="asks", allowed=False))
        calls.settled("theirs")
        assert waiting(way) == [(WaitingKind.CONFIRMATION, "ours", "odd")]
        calls.confirmed(ToolConfirmed(tool_use_id="odd", allowed=True))
        assert way.journal.waiting == ()
    assert steps.ran == ["odd"]


async def test_a_former_runs_result_is_posted_though_its_tool_is_served_no_more(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = path(steps, monkeypatch)
    theirs = call(name="theirs", custom=True)
    await way.ledger.start(theirs, NOW)
    await way.ledger.store("sesn_1", text_result(theirs, "kept"), NOW)
    way = dataclasses.replace(way, former=frozenset({"a"}))
    async with asyncio.TaskGroup() as group:
        Calls(way, group, lambda: None).called(theirs)
    assert steps.order[-1] == "post"
    assert steps.ran == []


async def test_a_call_of_another_session_with_the_same_id_is_another_call(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = path(steps, monkeypatch)
    foreign = msgspec.structs.replace(call(), session_id="sesn_2")
    await way.ledger.start(foreign, NOW)
    await way.ledger.store("sesn_2", text_result(foreign, "secret"), NOW)
    async with asyncio.TaskGroup() as group:
        Calls(way, group, lambda: None).called(call())
    assert steps.ran == ["a"]
    await way.journal.flush()
    assert await state(way) == "posted"
    theirs = await way.ledger.get("sesn_2", "a")
    assert theirs is not None
    assert theirs.state == "stored"


async def test_a_call_that_is_told_after_its_answer_is_not_begun(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = path(steps, monkeypatch)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        calls.settled("a")
        assert not calls.took("a")
        calls.called(call())
    assert steps.order == []

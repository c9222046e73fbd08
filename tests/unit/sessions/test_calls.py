"""The path of one call, step by step; whole sessions are in `test_runner.py`."""

import asyncio
from datetime import UTC, datetime

import pytest

from handiwork.model.errors import BrainUnavailableError
from handiwork.model.session import BrainSession, WorkItem
from handiwork.model.tool import ToolCall, ToolResult, text_result
from handiwork.sessions.calls import PARALLEL_CALLS, CallPath, Calls
from handiwork.sessions.journal import Journal
from handiwork.testing.brain import FakeBrain
from handiwork.testing.store import MemoryStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Steps:
    """A toolset that notes what happens around it, in order."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.running = self.most = 0
        self.go = asyncio.Event()
        self.go.set()

    def serves(self, call: ToolCall) -> bool:
        return call.name == "ours"

    def lane(self, call: ToolCall) -> str | None:
        return None

    async def run(self, call: ToolCall) -> ToolResult:
        self.order.append("run")
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go.wait()
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


def call(id_: str = "a", name: str = "ours") -> ToolCall:
    return ToolCall(id=id_, session_id="sesn_1", name=name, input={})


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


async def test_what_could_not_be_posted_is_posted_when_it_is_told_again(
    steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = path(steps, monkeypatch)
    post = way.brain.post

    async def down(work: WorkItem, result: ToolResult) -> None:
        raise BrainUnavailableError("503")

    monkeypatch.setattr(way.brain, "post", down)
    async with asyncio.TaskGroup() as group:
        calls = Calls(way, group, lambda: None)
        calls.called(call())
        await asyncio.sleep(0.01)
        monkeypatch.setattr(way.brain, "post", post)
        calls.called(call())
    assert steps.order == ["start", "run", "store", "start", "post"]

"""The suite that every brain passes, the fake included: each is driven by its own user's side."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import anthropic
import pytest

from brain_process import TOOLSET, BrainProcess, call, script
from handiwork.brains.anthropic import AnthropicBrain
from handiwork.brains.holding import Records
from handiwork.brains.protocol import Brain
from handiwork.model.errors import LeaseLostError
from handiwork.model.session import (
    BrainEvent,
    BrainSession,
    BrainSessionEnded,
    ToolCalled,
    ToolSettled,
    TurnIdle,
    TurnRunning,
    WorkItem,
)
from handiwork.model.tool import ToolCall, text_result
from handiwork.testing.brain import FakeBrain
from handiwork.testing.store import MemoryLeases

SECONDS = 20.0


class Side(Protocol):
    """A brain, and what its user does: a session whose every message asks for `calls` bash calls."""

    brain: Brain

    async def session(self, calls: int) -> str: ...

    async def say(self, session_id: str) -> None: ...

    async def steal(self, work: WorkItem) -> None: ...

    async def delete(self, session_id: str) -> None: ...

    def successor(self) -> Brain:
        """Return the brain as the next run of ours has it, while this one still holds."""
        ...


class FakeSide:
    def __init__(self) -> None:
        self.brain = FakeBrain()
        self._calls: dict[str, int] = {}
        self._count = 0

    async def session(self, calls: int) -> str:
        session_id = f"sesn_{len(self._calls)}"
        self._calls[session_id] = calls
        view = BrainSession(id=session_id, agent_id="agent_1", agent_name="tester", toolset=True)
        self.brain.session(view)
        return session_id

    async def say(self, session_id: str) -> None:
        calls = []
        for _ in range(self._calls[session_id]):
            self._count += 1
            calls.append(
                ToolCall(id=f"sevt_{self._count}", session_id=session_id, name="bash", input={})
            )
        self.brain.say(session_id, *calls)

    async def steal(self, work: WorkItem) -> None:
        self.brain.lose(work.session_id)

    async def delete(self, session_id: str) -> None:
        self.brain.emit(session_id, BrainSessionEnded(reason="deleted"))

    def successor(self) -> Brain:
        return self.brain


class LocalSide:
    def __init__(self, process: BrainProcess, client: anthropic.AsyncAnthropic) -> None:
        self._process = process
        self._client = client
        self._records = Records(MemoryLeases(), lambda: datetime.now(UTC))
        self._brains: list[AnthropicBrain] = []
        self.brain = self.successor()

    def successor(self) -> Brain:
        brain = AnthropicBrain(
            environment_id=self._process.environment_id,
            environment_key=self._process.environment_key,
            base_url=self._process.base_url,
            lease_seconds=2,
            records=self._records,
        )
        self._brains.append(brain)
        return brain

    async def close(self) -> None:
        for brain in self._brains:
            await brain.close()

    async def session(self, calls: int) -> str:
        steps = {"calls": [call("bash", command="true")["call"] for _ in range(calls)]}
        agent = await self._client.beta.agents.create(
            name="tester", model="scripted", system=script(steps), tools=[TOOLSET]
        )
        made = await self._client.beta.sessions.create(
            agent=agent.id, environment_id=self._process.environment_id
        )
        return made.id

    async def say(self, session_id: str) -> None:
        text = {"type": "text", "text": "go"}
        await self._client.beta.sessions.events.send(
            session_id, events=[{"type": "user.message", "content": [text]}]
        )

    async def steal(self, work: WorkItem) -> None:
        queue = self._client.beta.environments.work
        item = await queue.retrieve(work.id, environment_id=work.environment_id)
        thief = self._client.with_options(auth_token=self._process.environment_key)
        await thief.beta.environments.work.heartbeat(
            work.id,
            environment_id=work.environment_id,
            expected_last_heartbeat=item.latest_heartbeat_at,
            desired_ttl_seconds=60,
        )

    async def delete(self, session_id: str) -> None:
        await self._client.beta.sessions.delete(session_id)


@contextlib.asynccontextmanager
async def _fake(_: Path) -> AsyncIterator[Side]:
    yield FakeSide()


@contextlib.asynccontextmanager
async def _local(directory: Path) -> AsyncIterator[Side]:
    with BrainProcess.start(directory / "brain.db") as process:
        async with anthropic.AsyncAnthropic(
            api_key=process.api_key, base_url=process.base_url
        ) as client:
            side = LocalSide(process, client)
            yield side
            await side.close()


@pytest.fixture(params=[_fake, _local], ids=["fake", "anthropic on the local brain"])
async def side(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Side]:
    make: Callable[[Path], contextlib.AbstractAsyncContextManager[Side]] = request.param
    async with make(tmp_path) as made:
        yield made


async def claimed(brain: Brain) -> WorkItem:
    async with asyncio.timeout(SECONDS):
        while True:
            work = await brain.claim()
            if work is not None:
                return work


async def until(
    brain: Brain, work: WorkItem, enough: Callable[[BrainEvent], bool | Awaitable[bool]]
) -> list[BrainEvent]:
    found: list[BrainEvent] = []
    async with asyncio.timeout(SECONDS), contextlib.aclosing(brain.events(work)) as events:
        async for event in events:
            found.append(event)
            if enough(event):
                break
    return found


def calls_of(events: list[BrainEvent]) -> list[ToolCall]:
    return [event.call for event in events if isinstance(event, ToolCalled)]


def waits(event: BrainEvent) -> bool:
    return event == TurnIdle(stop_reason="requires_action")


def ended(event: BrainEvent) -> bool:
    return event == TurnIdle(stop_reason="end_turn")


async def test_an_empty_queue_gives_nothing(side: Side) -> None:
    assert await side.brain.claim() is None
    assert (await side.brain.stats()).depth == 0
    assert list(await side.brain.resume()) == []


async def test_the_queue_is_counted(side: Side) -> None:
    for _ in range(2):
        await side.say(await side.session(1))
    counted = await side.brain.stats()
    assert (counted.depth, counted.pending) == (2, 0)


async def test_a_successor_goes_on_with_the_lease(side: Side) -> None:
    """The former holder is still there, but it is one that beats no more."""
    await side.say(await side.session(1))
    work = await claimed(side.brain)
    held = asyncio.Event()

    async def former() -> None:
        with contextlib.suppress(LeaseLostError):
            async with side.brain.hold(work):
                held.set()
                await asyncio.sleep(SECONDS)

    async with asyncio.TaskGroup() as group:
        forgotten = group.create_task(former())
        await held.wait()
        successor = side.successor()
        assert list(await successor.resume()) == [work]
        async with successor.hold(work):
            (call,) = calls_of(await until(successor, work, waits))
            await successor.post(work, text_result(call, "ok"))
            await until(successor, work, ended)
        assert await side.brain.claim() is None
        forgotten.cancel()
    assert list(await successor.resume()) == []


async def test_a_turn_from_claim_to_end(side: Side) -> None:
    session_id = await side.session(2)
    await side.say(session_id)
    work = await claimed(side.brain)
    assert (work.session_id, work.kind) == (session_id, "session")
    assert work.environment_id == side.brain.environment_id
    async with side.brain.hold(work):
        view = await side.brain.describe(work)
        assert (view.id, view.agent_name, view.toolset) == (session_id, "tester", True)
        calls = calls_of(await until(side.brain, work, waits))
        assert [call.name for call in calls] == ["bash", "bash"]
        for one in calls:
            await side.brain.post(work, text_result(one, "ok"))
        await until(side.brain, work, ended)
    assert await side.brain.claim() is None


async def test_an_answered_call_is_settled_and_not_told_again(side: Side) -> None:
    session_id = await side.session(2)
    await side.say(session_id)
    work = await claimed(side.brain)
    async with side.brain.hold(work):
        first, second = calls_of(await until(side.brain, work, waits))
        await side.brain.post(work, text_result(first, "ok"))
        events = await until(side.brain, work, waits)
        assert ToolSettled(tool_use_id=first.id) in events
        assert [call.id for call in calls_of(events)] == [second.id]
        await side.brain.post(work, text_result(second, "ok"))


async def test_live_events_come_while_one_listens(side: Side) -> None:
    session_id = await side.session(1)
    await side.say(session_id)
    work = await claimed(side.brain)
    async with side.brain.hold(work):
        (first,) = calls_of(await until(side.brain, work, waits))
        said = asyncio.Event()

        async def go_on() -> None:
            await side.brain.post(work, text_result(first, "ok"))
            await said.wait()
            await side.say(session_id)

        turns = 0

        def second_turn(event: BrainEvent) -> bool:
            nonlocal turns
            turns += ended(event)
            if turns:
                said.set()
            return turns > 0 and waits(event)

        async with asyncio.TaskGroup() as group:
            group.create_task(go_on())
            events = await until(side.brain, work, second_turn)
        assert TurnRunning() in events
        assert calls_of(events)[-1].id != first.id


async def test_a_turn_left_open_is_offered_again(side: Side) -> None:
    session_id = await side.session(1)
    await side.say(session_id)
    work = await claimed(side.brain)
    async with side.brain.hold(work):
        (first,) = calls_of(await until(side.brain, work, waits))
    again = await claimed(side.brain)
    assert (again.session_id, again.id != work.id) == (session_id, True)
    async with side.brain.hold(again):
        (same,) = calls_of(await until(side.brain, again, waits))
        assert same.id == first.id


async def test_a_lost_lease_cancels_the_body(side: Side) -> None:
    session_id = await side.session(1)
    await side.say(session_id)
    work = await claimed(side.brain)

    async def body() -> None:
        await side.steal(work)
        await asyncio.sleep(SECONDS)

    with pytest.raises(LeaseLostError):
        async with side.brain.hold(work):
            await body()


async def test_only_a_session_that_is_over_is_told_as_ended(side: Side) -> None:
    session_id = await side.session(1)
    assert await side.brain.ended(session_id) == ""
    await side.delete(session_id)
    assert "the brain" in await side.brain.ended(session_id)


async def test_the_events_end_with_the_session(side: Side) -> None:
    session_id = await side.session(1)
    await side.say(session_id)
    work = await claimed(side.brain)
    async with side.brain.hold(work):
        await until(side.brain, work, waits)

        async def delete() -> None:
            await asyncio.sleep(0.1)
            await side.delete(session_id)

        async with asyncio.TaskGroup() as group:
            group.create_task(delete())
            events = await until(side.brain, work, lambda e: isinstance(e, BrainSessionEnded))
        assert isinstance(events[-1], BrainSessionEnded)

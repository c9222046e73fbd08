"""The loop with models that are slow, broken or late."""

import asyncio
import json

import pytest

from handiwork.brains.local.errors import WireError
from handiwork.brains.local.loop import Loop
from handiwork.brains.local.models import ModelResponse, Profile, Text
from handiwork.brains.local.shapes import TextBlock, UserInterrupt, UserMessage, UserToolResult

GO = UserMessage(content=[TextBlock(text="go")])
CALL = json.dumps({"turns": [{"steps": [{"call": {"tool": "bash"}}, {"say": "${result}"}]}]})


class Slow:
    """A model that answers when it is let."""

    profile = Profile()

    def __init__(self) -> None:
        self.let = asyncio.Event()

    def check(self, system: str) -> None:
        pass

    async def close(self) -> None:
        pass

    async def respond(self, request, tell) -> ModelResponse:
        await self.let.wait()
        return ModelResponse(blocks=(Text(request.message),))


class Broken(Slow):
    """A model with a defect."""

    async def respond(self, request, tell) -> ModelResponse:
        raise ZeroDivisionError


@pytest.fixture
async def tasks():
    async with asyncio.TaskGroup() as group:
        yield group


async def kinds(services, session) -> list[str]:
    subscriber = next(iter(session.subscribers))
    subscriber.close()
    text = b"".join([chunk async for chunk in subscriber.chunks(1)])
    return [line[7:] for line in text.decode().splitlines() if line.startswith("event: ")][1:]


async def test_a_turn_with_a_call(services, make_session, settle):
    session = await make_session(CALL)
    await services.loop.send(session, [GO])
    await settle(lambda: session.turn.pending)
    result = UserToolResult(tool_use_id=session.turn.pending[0].id, content=[TextBlock(text="r")])
    first = await services.loop.send(session, [result])
    assert await services.loop.send(session, [result]) == first
    await settle(lambda: not session.turn.open)
    assert services.work.open_turns == set()


async def test_a_slow_request_is_told_when_it_begins(services, make_session, settle, tasks):
    session = await make_session(CALL)
    model = Slow()
    loop = Loop(services.journal, {"scripted": model}, services.new_id, tasks)
    services.journal.subscribe(session)
    await loop.send(session, [GO])
    await asyncio.sleep(0.05)
    assert session.next_position == 3
    model.let.set()
    await settle(lambda: not session.asking)
    told = await kinds(services, session)
    assert told[2:5] == ["span.model_request_start", "agent.message", "span.model_request_end"]


async def test_an_interrupt_drops_the_request_and_a_late_answer(
    services, make_session, settle, tasks
):
    session = await make_session(CALL)
    loop = Loop(services.journal, {"scripted": Slow()}, services.new_id, tasks)
    services.journal.subscribe(session)
    await loop.send(session, [GO])
    await asyncio.sleep(0.05)
    await loop.send(session, [UserInterrupt()])
    await settle(lambda: not session.asking)
    told = await kinds(services, session)
    assert "agent.message" not in told
    assert told[-1] == "span.model_request_end"


async def test_a_defect_of_the_model_ends_this_turn_only(services, make_session, settle, tasks):
    session = await make_session(CALL)
    loop = Loop(services.journal, {"scripted": Broken()}, services.new_id, tasks)
    services.journal.subscribe(session)
    await loop.send(session, [GO])
    await settle(lambda: not session.asking)
    assert "session.error" in await kinds(services, session)


async def test_events_are_taken_all_or_none(services, make_session, settle):
    session = await make_session(CALL)
    with pytest.raises(WireError, match="waits for a result"):
        await services.loop.send(session, [GO, UserToolResult(tool_use_id="none")])
    assert session.next_position == 0
    assert not session.turn.open


async def test_a_message_and_an_interrupt_together_tell_the_message_once(
    services, make_session, settle
):
    session = await make_session(CALL)
    await services.loop.send(session, [GO])
    await settle(lambda: session.turn.pending)
    services.journal.subscribe(session)
    told = await services.loop.send(session, [GO, UserInterrupt()])
    assert all(event["processed_at"] for event in told)
    await settle(lambda: session.turn.pending)
    assert (await kinds(services, session)).count("user.message") == 1
    assert session.progress.waiting_at == {}

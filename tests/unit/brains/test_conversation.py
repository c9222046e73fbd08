"""The user's side of a brain, against a real local brain in a process of its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from brain_process import BrainProcess, call, script
from handiwork.brains.conversation import Conversation, _cost, _read, _usage, conversation
from handiwork.model.errors import (
    BrainUnavailableError,
    ConfigError,
    NotFoundError,
    UnauthorizedError,
)
from handiwork.model.run import Cost, RunEvent, RunUsage


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory):
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as brain:
        yield brain


@pytest.fixture
async def talk(brain: BrainProcess) -> AsyncIterator[Conversation]:
    async with conversation(base_url=brain.base_url, api_key=brain.api_key) as talk:
        yield talk


async def made(talk: Conversation, brain: BrainProcess, *steps: dict[str, object]) -> str:
    agent = await talk.make_agent("a", model="scripted", system=script(*steps))
    return await talk.make_session(agent, brain.environment_id, title="t")


async def drain(happenings: AsyncIterator[RunEvent]) -> None:
    async for _ in happenings:
        pass


async def test_a_turn_is_followed_from_before_it_begins(
    talk: Conversation, brain: BrainProcess
) -> None:
    session = await made(talk, brain, {"say": "you said ${text}"}, call("bash", command="true"))
    async with talk.following(session) as happenings:
        await talk.say(session, "hello")
        seen: list[RunEvent] = []
        async for happening in happenings:
            seen.append(happening)
            if happening.stop_reason:
                break
    by_kind = {happening.kind: happening for happening in seen}
    assert by_kind["user.message"].text == "hello"
    assert by_kind["agent.message"].text == "you said hello"
    use = by_kind["agent.tool_use"]
    assert (use.tool, use.input) == ("bash", {"command": "true"})
    assert use.id
    assert seen[-1].stop_reason == "requires_action"


async def test_what_the_brain_refuses(talk: Conversation, brain: BrainProcess) -> None:
    with pytest.raises(NotFoundError):
        await talk.make_session("agent_01aaaaaaaaaaaaaaaaaaaaaa", brain.environment_id, title="t")
    with pytest.raises(NotFoundError):
        async with talk.following("sesn_01aaaaaaaaaaaaaaaaaaaaaa"):
            pass
    with pytest.raises(ConfigError, match="script"):
        await talk.make_agent("a", model="scripted", system="not a script")
    async with conversation(base_url=brain.base_url, api_key="sk-ant-wrong") as stranger:
        with pytest.raises(UnauthorizedError) as caught:
            await stranger.make_agent("a", model="scripted", system=script({"say": "x"}))
    assert "sk-ant-wrong" not in str(caught.value)


async def test_all_events_each_once_over_a_restart_of_the_brain(tmp_path: Path) -> None:
    seen: list[RunEvent] = []

    async def follow(talk: Conversation, session: str) -> None:
        async for event in talk.events(session):
            seen.append(event)

    with BrainProcess.start(tmp_path / "brain.db") as brain:
        async with conversation(base_url=brain.base_url, api_key=brain.api_key) as talk:
            session = await made(talk, brain, {"say": "x"})
            await talk.say(session, "before")
            following = asyncio.ensure_future(follow(talk, session))
            await until(lambda: any(event.stop_reason for event in seen))
            brain.kill()
            brain.restart()
            await talk.say(session, "after")
            await until(lambda: len([event for event in seen if event.stop_reason]) == 2)
            following.cancel()
            history = [event async for event in talk.history(session)]
    assert len({event.id for event in seen}) == len(seen)
    assert [event.text for event in history if event.kind == "user.message"] == ["before", "after"]
    assert [event.id for event in seen] == [event.id for event in history]


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_an_agent_is_found_by_its_mark(talk: Conversation) -> None:
    assert await talk.find_agent("mark-1") == ""
    system = script({"say": "x"})
    await talk.make_agent("other", model="scripted", system=system, mark="mark-2")
    agent = await talk.make_agent("a", model="scripted", system=system, mark="mark-1")
    await talk.make_agent("unmarked", model="scripted", system=system)
    assert await talk.find_agent("mark-1") == agent


async def test_usage_and_an_interrupt(talk: Conversation, brain: BrainProcess) -> None:
    session = await made(talk, brain, call("bash", command="true"), {"say": "x"})
    async with talk.following(session) as happenings:
        await talk.say(session, "go")
        async for happening in happenings:
            if happening.stop_reason == "requires_action":
                await talk.interrupt(session)
            elif happening.stop_reason:
                break
    assert happening.stop_reason == "end_turn"
    assert await talk.usage(session) == (RunUsage(), None)


def test_what_a_brain_says_of_money_and_counts() -> None:
    assert _cost({"amount": "50", "currency": "USD"}) == Cost(amount="50", currency="USD")
    for odd in (None, {}, 5, {"amount": 5, "currency": "USD"}):
        assert _cost(odd) is None
    assert _usage(
        {
            "input_tokens": 3,
            "output_tokens": -1,
            "cache_read_input_tokens": "x",
            "cache_creation": {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 1},
        }
    ) == RunUsage(input_tokens=3, cache_creation_input_tokens=5)


async def test_a_brain_that_dies(tmp_path: Path) -> None:
    with BrainProcess.start(tmp_path / "brain.db") as brain:
        async with conversation(base_url=brain.base_url, api_key=brain.api_key) as talk:
            session = await made(talk, brain, {"say": "x"})
            async with talk.following(session) as happenings:
                brain.kill()
                with pytest.raises(BrainUnavailableError):
                    await asyncio.wait_for(drain(happenings), 30)
            with pytest.raises(BrainUnavailableError):
                await talk.say(session, "still there?")


@pytest.mark.parametrize(
    ("event", "read"),
    [
        ({"type": "a", "id": None}, RunEvent(kind="a", id="")),
        ({"type": "a", "id": "1", "content": "x"}, RunEvent(kind="a", id="1")),
        (
            {"type": "a", "id": "1", "content": [{"text": "x"}, "y", {"type": "image"}]},
            RunEvent(kind="a", id="1", text="x"),
        ),
        (
            {"type": "a", "id": "1", "stop_reason": {"type": "end_turn"}},
            RunEvent(kind="a", id="1", stop_reason="end_turn"),
        ),
        (
            {"type": "session.error", "id": "1", "error": {"type": "x", "message": "why"}},
            RunEvent(kind="session.error", id="1", text="why"),
        ),
        ({"type": "session.error", "id": "1", "error": 7}, RunEvent(kind="session.error", id="1")),
        (
            {"type": "a", "id": "1", "custom_tool_use_id": "t", "is_error": True},
            RunEvent(kind="a", id="1", tool_use_id="t", is_error=True),
        ),
    ],
)
def test_events_are_read_as_people_need_them(event: dict[str, object], read: RunEvent) -> None:
    assert _read(event) == read

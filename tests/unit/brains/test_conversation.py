"""The user's side of a brain, against a real local brain in a process of its own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from brain_process import BrainProcess, call, script
from handiwork.brains.conversation import Conversation, Happening, _read, conversation
from handiwork.model.errors import (
    BrainUnavailableError,
    ConfigError,
    NotFoundError,
    UnauthorizedError,
)


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


async def drain(happenings: AsyncIterator[Happening]) -> None:
    async for _ in happenings:
        pass


async def test_a_turn_is_followed_from_before_it_begins(
    talk: Conversation, brain: BrainProcess
) -> None:
    session = await made(talk, brain, {"say": "you said ${text}"}, call("bash", command="true"))
    async with talk.following(session) as happenings:
        await talk.say(session, "hello")
        seen: list[Happening] = []
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
        ({"type": "a", "id": None}, Happening(kind="a", id="")),
        ({"type": "a", "id": "1", "content": "x"}, Happening(kind="a", id="1")),
        (
            {"type": "a", "id": "1", "content": [{"text": "x"}, "y", {"type": "image"}]},
            Happening(kind="a", id="1", text="x"),
        ),
        (
            {"type": "a", "id": "1", "stop_reason": {"type": "end_turn"}},
            Happening(kind="a", id="1", stop_reason="end_turn"),
        ),
        (
            {"type": "a", "id": "1", "custom_tool_use_id": "t", "is_error": True},
            Happening(kind="a", id="1", tool_use_id="t", is_error=True),
        ),
    ],
)
def test_events_are_read_as_people_need_them(event: dict[str, object], read: Happening) -> None:
    assert _read(event) == read

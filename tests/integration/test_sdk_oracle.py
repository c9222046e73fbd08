"""The SDK's own worker and our engine serve the same scripts on one brain and post the same results.

What differs stands in `tests/oracle_cases.py`, with the reason.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic.lib.tools import ToolError, beta_async_tool
from anthropic.lib.tools.agent_toolset import beta_agent_toolset_20260401

import engine
from brain_process import TOOLSET, BrainProcess, script
from handiwork.model.errors import ToolFailedError
from handiwork.model.tool import ImageBlock
from handiwork.tools.registry import tool
from handiwork.tools.toolset import stock
from oracle_cases import CASES, PIXEL, Case, shown
from session_user import User, reach

pytestmark = pytest.mark.timeout(120)

ASKING = {**TOOLSET, "default_config": {"permission_policy": {"type": "always_ask"}}}
SHOUT = {
    "type": "custom",
    "name": "shout",
    "description": "says it loudly",
    "input_schema": {
        "type": "object",
        "properties": {"word": {"type": "string"}},
        "required": ["word"],
    },
}


@tool("shout", description="says it loudly")
async def our_shout(context: Any, *, word: str) -> str | ImageBlock:
    if word == "fail":
        raise ToolFailedError("cannot shout")
    return ImageBlock(media_type="image/png", data=PIXEL) if word == "picture" else word.upper()


@beta_async_tool(name="shout")
async def sdk_shout(word: str) -> Any:
    """Say it loudly.

    Args:
        word: what to say
    """
    if word == "fail":
        raise ToolError("cannot shout")
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    return [{"type": "image", "source": source}] if word == "picture" else word.upper()


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrainProcess]:
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as process:
        yield process


@pytest.fixture
async def client(brain: BrainProcess) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        yield client


@contextlib.asynccontextmanager
async def sdk_worker(brain: BrainProcess, workdir: Path) -> AsyncIterator[None]:
    async with anthropic.AsyncAnthropic(
        auth_token=brain.environment_key, base_url=brain.base_url
    ) as hands:
        worker = hands.beta.environments.work.worker(
            environment_id=brain.environment_id,
            environment_key=brain.environment_key,
            workdir=str(workdir),
            tools=lambda env: [*beta_agent_toolset_20260401(env), sdk_shout],
            max_idle=0.3,
        )
        running = asyncio.ensure_future(worker.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


def one_by_one(cases: list[Case]) -> list[Any]:
    return [{"call": {"tool": each.tool, "input": each.input}} for each in cases]


@contextlib.asynccontextmanager
async def our_engine(brain: BrainProcess, data: Path) -> AsyncIterator[None]:
    registry = stock()
    registry.add(our_shout)
    data.mkdir()
    async with engine.running(data, reach(brain), idle_seconds=0.3, registry=registry):
        yield


async def begun(
    client: anthropic.AsyncAnthropic, brain: BrainProcess, steps: list[Any], toolset: Any
) -> User:
    agent = await client.beta.agents.create(
        name="oracle", model="scripted", system=script(*steps), tools=[toolset, SHOUT]
    )
    session = await client.beta.sessions.create(agent=agent.id, environment_id=brain.environment_id)
    return User(client, session.id)


async def answers(user: User, workdir: str) -> list[str]:
    """Return what each call was answered, in the order of the calls: error or not, and the blocks."""
    listed = [event async for event in user.client.beta.sessions.events.list(user.id, limit=1000)]
    told = {}
    for event in listed:
        if event.type in ("user.tool_result", "user.custom_tool_result", "agent.tool_result"):
            about = getattr(event, "tool_use_id", None) or event.custom_tool_use_id
            assert about not in told
            kind = "error " if event.is_error else ""
            told[about] = kind + shown(event.content).replace(workdir, "/workspace")
    uses = [e.id for e in listed if e.type in ("agent.tool_use", "agent.custom_tool_use")]
    return [told[use] for use in uses]


async def both(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic, play: Any, *given: Any
) -> tuple[list[str], list[str]]:
    """Let the SDK's worker serve one session and our engine the same again."""
    workdir = tmp_path / "sdk"
    workdir.mkdir()
    found = []
    for serving in (sdk_worker(brain, workdir), our_engine(brain, tmp_path / "ours")):
        user = await begun(client, brain, *given)
        async with serving:
            await user.say()
            await play(user)
            await user.turn_over()
        found.append(await answers(user, str(workdir)))
    return found[0], found[1]


async def nothing(user: User) -> None:
    """The user only waits."""


async def test_every_tool_answers_as_the_sdk_does(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    sdk, ours = await both(tmp_path, brain, client, nothing, one_by_one(CASES), TOOLSET)
    faults = []
    for each, theirs, mine in zip(CASES, sdk, ours, strict=True):
        if each.difference is None:
            if theirs != mine:
                faults.append(f"{each.name}\n   sdk  {theirs[:600]}\n   ours {mine[:600]}")
            continue
        assert theirs != mine, f"{each.name} does not differ any more"
        for who, said, pattern in (
            ("sdk", theirs, each.difference.sdk),
            ("ours", mine, each.difference.ours),
        ):
            if not re.fullmatch(pattern, said, re.DOTALL):
                faults.append(f"{each.name}: {who} said {said[:600]}, not {pattern}")
    assert not faults, "\n" + "\n".join(faults)


@pytest.mark.parametrize("allow", [True, False])
async def test_a_call_that_asks_is_held_and_settled_alike(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic, allow: bool
) -> None:
    steps = one_by_one([Case("asked", "bash", {"command": "echo ran >> count; cat count"})])

    async def decide(user: User) -> None:
        while True:
            await asyncio.sleep(0.02)
            if uses := await user.events("agent.tool_use"):
                break
        await asyncio.sleep(0.5)
        assert await user.events("user.tool_result") == []
        verdict = {"type": "user.tool_confirmation", "tool_use_id": uses[0].id}
        verdict |= {"result": "allow"} if allow else {"result": "deny", "deny_message": "no"}
        await user.client.beta.sessions.events.send(user.id, events=[verdict])

    sdk, ours = await both(tmp_path, brain, client, decide, steps, ASKING)
    assert sdk == ours
    assert ("ran" in ours[0]) is allow


async def test_parallel_calls_are_all_answered_alike(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    """The SDK one after another, we side by side: what each call is answered is the same."""
    calls = [{"tool": "shout", "input": {"word": word}} for word in ("one", "two", "fail", "four")]
    sdk, ours = await both(tmp_path, brain, client, nothing, [{"calls": calls}], TOOLSET)
    assert sdk == ours

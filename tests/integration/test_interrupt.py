"""An interrupt in a real sandbox: the process tree is gone, the call is settled, work goes on."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import anthropic
import pytest

import engine
from brain_process import TOOLSET, BrainProcess, call, script
from handiwork.tools.context import ToolContext
from handiwork.tools.registry import tool
from session_user import User, noted, reach

pytestmark = pytest.mark.timeout(120)

TREE = "setsid nohup sh -c 'sleep 7001 & sleep 7002' >/dev/null 2>&1 & (sleep 7003 &) ; sleep 7004"
SLEEPS = (b"7001", b"7002", b"7003", b"7004")


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[BrainProcess]:
    with BrainProcess.start(tmp_path / "brain.db") as process:
        yield process


@pytest.fixture
async def client(brain: BrainProcess) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        yield client


def alive() -> set[bytes]:
    """The sleeps of the tree that run on this host, in whatever sandbox."""
    found = set[bytes]()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"sleep"):
            found |= set(words) & set(SLEEPS)
    return found


async def until(held: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not held():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.005)


async def interrupt(user: User) -> None:
    events = [{"type": "user.interrupt"}]
    await user.client.beta.sessions.events.send(user.id, events=events)


async def refused(hands: engine.Engine, session_id: str, id_: str) -> float:
    """Wait until the call is settled; when that was."""
    while True:
        entry = await hands.store.ledger.get(session_id, id_)
        if entry is not None and entry.state == "refused":
            return time.monotonic()
        await asyncio.sleep(0.005)


async def test_the_whole_process_tree_is_gone_and_the_next_message_is_served(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    user = await User.begin(client, brain, call("bash", command=TREE))
    async with engine.running(tmp_path, reach(brain)) as hands:
        await user.say()
        await until(lambda: alive() == set(SLEEPS), "the tree did not start")
        (used,) = await user.events("agent.tool_use")
        began = time.monotonic()
        await interrupt(user)
        settled = await refused(hands, user.id, used.id)
        await until(lambda: not alive(), "the tree lives on")
        print(f"settled {settled - began:.3f} s, gone {time.monotonic() - began:.3f} s")
        await user.turn_over()
        assert await user.events("user.tool_result") == []
        # The same turn again: the shell is a new one and the files are there.
        await user.say()
        await until(lambda: alive() == set(SLEEPS), "the next message is not served")
        await interrupt(user)
        await until(lambda: not alive(), "the second tree lives on")


class Deaf:
    """A host tool that goes on when it is cancelled."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.go = asyncio.Event()

    async def run(self, context: ToolContext) -> str:
        while not self.go.is_set():
            try:
                await self.go.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
        return "at last"


async def test_a_host_tool_that_ignores_it_delays_nothing(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    deaf = Deaf()
    custom = {
        "type": "custom",
        "name": "deaf",
        "description": "goes on",
        "input_schema": {"type": "object"},
    }
    agent = await client.beta.agents.create(
        name="tester",
        model="scripted",
        system=script(
            {"calls": [call("deaf")["call"], call("bash", command="sleep 7001")["call"]]},
        ),
        tools=[TOOLSET, custom],
    )
    session = await client.beta.sessions.create(agent=agent.id, environment_id=brain.environment_id)
    user = User(client, session.id)
    async with engine.running(tmp_path, reach(brain)) as hands:
        hands.hands.registry.add(tool("deaf", description="goes on")(_of(deaf)))
        await user.say()
        await until(lambda: bool(alive()), "the call did not start")
        await noted(hands, user.id, "tool.started")
        (used,) = await user.events("agent.custom_tool_use")
        began = time.monotonic()
        await interrupt(user)
        settled = await refused(hands, user.id, used.id)
        print(f"settled {settled - began:.3f} s")
        await until(lambda: not alive(), "the command lives on")
        await until(lambda: deaf.cancelled == 1, "the tool was not cancelled")
        await user.turn_over()
        await user.say()
        await until(lambda: bool(alive()), "the next message is not served")
        deaf.go.set()
        await interrupt(user)
        await until(lambda: len(hands.hands.stragglers) == 0, "the tool is not let go")
        assert await user.events("user.custom_tool_result") == []


def _of(deaf: Deaf):
    async def run(context: ToolContext) -> str:
        return await deaf.run(context)

    return run

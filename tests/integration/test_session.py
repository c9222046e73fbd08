"""Sessions end to end: the official SDK asks, the local brain plans, the engine's tools do.

Real processes and sockets all the way but for the egress proxy, which other tests hold.
"""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import engine
from brain_process import TOOLSET, BrainProcess, call, script
from handiwork.model.session import SessionState
from handiwork.sessions.calls import CUT_SHORT

pytestmark = pytest.mark.timeout(120)
SECONDS = 30


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrainProcess]:
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as process:
        yield process


@pytest.fixture
async def client(brain: BrainProcess) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        yield client


def reach(brain: BrainProcess) -> dict[str, str]:
    return {
        "base_url": brain.base_url,
        "environment_id": brain.environment_id,
        "environment_key": brain.environment_key,
    }


class User:
    """The user's side of one session."""

    def __init__(self, client: anthropic.AsyncAnthropic, session_id: str) -> None:
        self.client = client
        self.id = session_id

    @classmethod
    async def begin(
        cls, client: anthropic.AsyncAnthropic, brain: BrainProcess, *steps: dict[str, Any]
    ) -> "User":
        agent = await client.beta.agents.create(
            name="tester", model="scripted", system=script(*steps), tools=[TOOLSET]
        )
        session = await client.beta.sessions.create(
            agent=agent.id, environment_id=brain.environment_id
        )
        return cls(client, session.id)

    async def say(self, text: str = "go") -> None:
        await self.client.beta.sessions.events.send(
            self.id,
            events=[{"type": "user.message", "content": [{"type": "text", "text": text}]}],
        )

    async def events(self, kind: str) -> list[Any]:
        found = self.client.beta.sessions.events.list(self.id)
        return [event async for event in found if event.type == kind]

    async def results(self, count: int) -> list[tuple[str, bool]]:
        """Wait for so many results; their texts, and whether they are errors."""
        deadline = time.monotonic() + SECONDS
        while True:
            events = await self.events("user.tool_result")
            if len(events) >= count:
                return [(event.content[0].text, bool(event.is_error)) for event in events]
            assert time.monotonic() < deadline, f"{len(events)} of {count} results came"
            await asyncio.sleep(0.02)

    async def turn_over(self, turns: int = 1) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            idles = await self.events("session.status_idle")
            if sum(idle.stop_reason.type == "end_turn" for idle in idles) >= turns:
                return
            assert time.monotonic() < deadline, "the turn did not end"
            await asyncio.sleep(0.02)


async def state(hands: engine.Engine, session_id: str, *states: SessionState) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        found = [s for s in await hands.store.sessions.list() if s.id == session_id]
        if found and found[0].state in states:
            return
        assert time.monotonic() < deadline, f"the session is {found}"
        await asyncio.sleep(0.02)


async def noted(hands: engine.Engine, session_id: str, kind: str) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        if kind in await hands.kinds(session_id):
            return
        assert time.monotonic() < deadline, f"no {kind} in {await hands.kinds(session_id)}"
        await asyncio.sleep(0.02)


async def test_every_stock_tool_of_one_session(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    user = await User.begin(
        client,
        brain,
        call("write", file_path="src/a.py", content="print('one')\n"),
        call("edit", file_path="src/a.py", old_string="one", new_string="two"),
        call("bash", command="cd src && python3 a.py"),
        call("bash", command="basename $PWD; false"),
        call("read", file_path="src/a.py"),
        call("glob", pattern="**/*.py"),
        call("grep", pattern="pr.nt"),
        call("read", file_path="/etc/passwd"),
    )
    async with engine.running(tmp_path, reach(brain)):
        await user.say()
        await user.turn_over()
        assert await user.results(8) == [
            ("wrote 13 bytes to src/a.py", False),
            ("edited src/a.py (1 replacement(s))", False),
            ("two", False),
            ("src\nexit code 1", True),
            ("print('two')\n", False),
            ("/workspace/src/a.py", False),
            ("/workspace/src/a.py:1:print('two')", False),
            ("read: path '/etc/passwd' is outside the session's working directory", True),
        ]


async def test_twenty_sessions_at_once(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    users = [
        await User.begin(
            client,
            brain,
            call("bash", command=f"echo {number} > mine; sleep 1"),
            call("bash", command="cat mine; ls | wc -l"),
        )
        for number in range(20)
    ]
    async with engine.running(tmp_path, reach(brain)) as hands:
        for user in users:
            await user.say()
        for number, user in enumerate(users):
            assert await user.results(2) == [("(no output)", False), (f"{number}\n1", False)]
        assert len(await hands.store.sessions.list()) == 20
    assert {s.state.value for s in await _sandboxes(tmp_path)} == {"sleeping"}


async def _sandboxes(data: Path) -> list[Any]:
    store = await engine.open_sqlite_store(data / "handiwork.db", control_key=b"k" * 32)
    try:
        return await store.sandboxes.list()
    finally:
        await store.close()


async def test_idle_sleep_and_a_second_message_finds_the_files(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    user = await User.begin(client, brain, call("bash", command="echo x >> log; cat log"))
    async with engine.running(tmp_path, reach(brain), idle_seconds=0.2) as hands:
        await user.say()
        assert await user.results(1) == [("x", False)]
        await state(hands, user.id, SessionState.SLEEPING)
        (record,) = await hands.store.sandboxes.list()
        assert record.state.value == "sleeping"
        await user.say()
        assert await user.results(2) == [("x", False), ("x\nx", False)]
        (again,) = await hands.store.sandboxes.list()
        assert again.id == record.id


async def test_a_drain_and_a_new_start_keep_the_files(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    user = await User.begin(client, brain, call("bash", command="echo x >> log; cat log"))
    for count in (1, 2):
        async with engine.running(tmp_path, reach(brain)) as hands:
            await user.say()
            results = await user.results(count)
            assert results[-1] == ("\n".join("x" * count), False)
            await state(hands, user.id, SessionState.ACTIVE)


def _engine_process(data: Path, brain: BrainProcess) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, engine.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told = {"data": str(data), "brain": reach(brain), "lease_seconds": 3}
    process.stdin.write(json.dumps(told).encode() + b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"ready\n"
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    for pipe in (process.stdin, process.stdout):
        pipe.close()


async def test_kill_9_in_the_middle_of_a_call(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    user = await User.begin(
        client,
        brain,
        call("bash", command="echo run >> count; sleep 8"),
        call("bash", command="cat count"),
    )
    first = _engine_process(tmp_path, brain)
    try:
        await user.say()
        counts = [None]
        deadline = time.monotonic() + SECONDS
        while not any(counts):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
            counts = list((tmp_path / "sandboxes").glob("*/upper/workspace/count"))
    finally:
        _end(first)
    second = _engine_process(tmp_path, brain)
    try:
        assert await user.results(2) == [(CUT_SHORT, True), ("run", False)]
    finally:
        _end(second)


async def test_a_lost_lease_posts_nothing(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    user = await User.begin(client, brain, call("bash", command="sleep 2; echo late"))
    async with engine.running(tmp_path, reach(brain), lease_seconds=2) as hands:
        await user.say()
        await noted(hands, user.id, "tool.started")
        session = await hands.store.sessions.get(user.id)
        await _steal(client, brain, session.work_id)
        await state(hands, user.id, SessionState.LOST)
        assert await user.events("user.tool_result") == []


async def _steal(client: anthropic.AsyncAnthropic, brain: BrainProcess, work_id: str) -> None:
    """Beat once with the lease's own value, as its thief would."""
    thief = client.with_options(auth_token=brain.environment_key)
    item = await client.beta.environments.work.retrieve(
        work_id, environment_id=brain.environment_id
    )
    beat = await thief.beta.environments.work.heartbeat(
        work_id,
        environment_id=brain.environment_id,
        expected_last_heartbeat=item.latest_heartbeat_at,
        desired_ttl_seconds=60,
    )
    assert beat.lease_extended


async def test_a_missing_policy_refuses_the_session_and_says_so(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    user = await User.begin(client, brain, call("bash", command="true"))
    async with engine.running(tmp_path, reach(brain), policy="strict", idle_seconds=0.2) as hands:
        await user.say()
        ((told, is_error),) = await user.results(1)
        assert is_error
        assert "the environment policy 'strict' does not exist" in told
        session = await hands.store.sessions.get(user.id)
        assert session.state is SessionState.REFUSED
        assert "the environment policy 'strict' does not exist" in session.reason
        assert await hands.driver.leftovers() == []
        await user.turn_over()


async def test_stop(tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic) -> None:
    user = await User.begin(client, brain, call("bash", command="sleep 60"))
    async with engine.running(tmp_path, reach(brain), idle_seconds=0.2) as hands:
        await user.say()
        await state(hands, user.id, SessionState.ACTIVE)
        await noted(hands, user.id, "tool.started")
        assert await hands.dispatcher.stop(user.id)
        assert await user.results(1) == [(CUT_SHORT, True)]
        await user.turn_over()

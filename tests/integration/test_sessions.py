"""Sessions end to end: the official SDK asks, the local brain plans, the engine's tools do.

Real processes and sockets all the way but for the egress proxy, which other tests hold.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest

import engine
from brain_process import BrainProcess, call
from handiwork.model.session import SessionState
from handiwork.sessions.calls import CUT_SHORT
from session_user import User, noted, reach, state

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrainProcess]:
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as process:
        yield process


@pytest.fixture
async def client(brain: BrainProcess) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        yield client


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
    """Beat once with the lease's own value, as its thief would; its holder may come between."""
    thief = client.with_options(auth_token=brain.environment_key)
    while True:
        item = await client.beta.environments.work.retrieve(
            work_id, environment_id=brain.environment_id
        )
        try:
            beat = await thief.beta.environments.work.heartbeat(
                work_id,
                environment_id=brain.environment_id,
                expected_last_heartbeat=item.latest_heartbeat_at,
                desired_ttl_seconds=60,
            )
        except anthropic.APIStatusError as error:
            if error.status_code != 412:
                raise
        else:
            assert beat.lease_extended
            return


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

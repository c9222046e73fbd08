"""The SDK's own EnvironmentWorker serves sessions of the local brain; crashes lose nothing."""

import asyncio
import time

import pytest
from anthropic import Anthropic, AsyncAnthropic
from anthropic.lib.tools import ToolError, beta_async_tool

from brain_process import TOOLSET, BrainProcess, call, script
from skill_uploads import MANIFEST


@pytest.fixture
def brain(tmp_path):
    with BrainProcess.start(tmp_path / "brain.db") as process:
        yield process


@pytest.fixture
async def user(brain):
    async with AsyncAnthropic(api_key=brain.api_key, base_url=brain.base_url, timeout=20) as made:
        yield made


@pytest.fixture
async def hands(brain):
    async with AsyncAnthropic(
        auth_token=brain.environment_key, base_url=brain.base_url, timeout=20
    ) as made:
        yield made


@beta_async_tool(name="bash")
async def fake_bash(command: str) -> str:
    """Answer a command without a shell.

    Args:
        command: what to run
    """
    if command == "fail":
        raise ToolError("exit code 1")
    await asyncio.sleep(0.02)
    return f"ran {command}"


SAY = {"type": "user.message", "content": [{"type": "text", "text": "go"}]}


async def started(user, brain, *steps):
    agent = await user.beta.agents.create(
        name="a", model="scripted", system=script(*steps), tools=[TOOLSET]
    )
    return await user.beta.sessions.create(
        agent=agent.id, environment_id=brain.environment_id, initial_events=[SAY]
    )


async def ended(user, session_id: str) -> list:
    """Wait for the turn's end; the session's events."""
    while True:
        page = await user.beta.sessions.events.list(session_id)
        last = page.data[-1] if page.data else None
        if last and last.type == "session.status_idle" and last.stop_reason.type == "end_turn":
            return page.data
        await asyncio.sleep(0.05)


async def test_the_sdk_worker_serves_a_session(brain, user, hands, tmp_path):
    worker = hands.beta.environments.work.worker(
        environment_id=brain.environment_id,
        environment_key=brain.environment_key,
        workdir=str(tmp_path / "work"),
        tools=[fake_bash],
        max_idle=0.3,
    )
    running = asyncio.ensure_future(worker.run())
    try:
        session = await started(
            user,
            brain,
            call("bash", command="ls"),
            call("bash", command="fail"),
            {"if": {"is_error": True}, "then": [{"say": "saw ${result}"}]},
        )
        events = await asyncio.wait_for(ended(user, session.id), 20)
        said = [event.content[0].text for event in events if event.type == "agent.message"]
        assert said == ["saw exit code 1"]
        first = next(event for event in events if event.type == "user.tool_result")
        assert first.content[0].text == "ran ls"
        items = (await hands.beta.environments.work.list(brain.environment_id)).data
        while items[0].state != "stopped":
            await asyncio.sleep(0.05)
            items = (await hands.beta.environments.work.list(brain.environment_id)).data
        await user.beta.sessions.events.send(session.id, events=[SAY])
        again = (await hands.beta.environments.work.list(brain.environment_id)).data
        assert again[0].data.id == session.id
        assert again[0].id != items[0].id
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_sdk_worker_gets_the_sessions_skills(brain, user, hands, tmp_path):
    files = [
        ("demo-skill/SKILL.md", MANIFEST.encode()),
        ("demo-skill/lib/a.txt", b"from the skill"),
    ]
    skill = await user.beta.skills.create(files=files)
    agent = await user.beta.agents.create(
        name="a",
        model="scripted",
        system=script(call("read", file_path="skills/demo-skill/lib/a.txt"), {"say": "${result}"}),
        tools=[TOOLSET],
        skills=[{"type": "custom", "skill_id": skill.id, "version": "latest"}],
    )
    session = await user.beta.sessions.create(
        agent=agent.id, environment_id=brain.environment_id, initial_events=[SAY]
    )
    worker = hands.beta.environments.work.worker(
        environment_id=brain.environment_id,
        environment_key=brain.environment_key,
        workdir=str(tmp_path / "work"),
        max_idle=0.3,
    )
    running = asyncio.ensure_future(worker.run())
    try:
        events = await asyncio.wait_for(ended(user, session.id), 20)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    said = [event.content[0].text for event in events if event.type == "agent.message"]
    assert said == ["from the skill"]


async def test_twenty_sessions_at_once(brain, user, hands, tmp_path):
    sessions = [
        await started(user, brain, call("bash", command=f"n{number}"), {"say": "${result}"})
        for number in range(20)
    ]
    work = hands.beta.environments.work
    serving = []

    async def dispatch() -> None:
        poller = work.poller(
            environment_id=brain.environment_id,
            environment_key=brain.environment_key,
            auto_stop=False,
        )
        async for item in poller:
            worker = work.worker(
                workdir=str(tmp_path / item.data.id), tools=[fake_bash], max_idle=0.2
            )
            serving.append(
                asyncio.ensure_future(
                    worker.handle_item(
                        work_id=item.id,
                        environment_id=item.environment_id,
                        session_id=item.data.id,
                        work_secret=item.secret,
                        environment_key=brain.environment_key,
                    )
                )
            )
            if len(serving) == 20:
                return

    dispatching = asyncio.ensure_future(dispatch())
    try:
        async with asyncio.timeout(45):
            histories = await asyncio.gather(*(ended(user, each.id) for each in sessions))
            await dispatching
            await asyncio.gather(*serving)
    finally:
        for task in (dispatching, *serving):
            task.cancel()
        await asyncio.gather(dispatching, *serving, return_exceptions=True)
    said = [
        [event.content[0].text for event in events if event.type == "agent.message"]
        for events in histories
    ]
    assert said == [[f"ran n{number}"] for number in range(20)]


async def test_a_healthcheck_is_answered_by_the_sdk(brain, user, hands, tmp_path):
    path = f"/v1/environments/{brain.environment_id}/work/healthcheck"
    headers = {"anthropic-beta": "managed-agents-2026-04-01"}
    item = await user.post(path, cast_to=object, options={"headers": headers})
    worker = hands.beta.environments.work.worker(
        environment_id=brain.environment_id,
        environment_key=brain.environment_key,
        workdir=str(tmp_path),
        tools=[],
    )
    running = asyncio.ensure_future(worker.run())
    try:
        async with asyncio.timeout(15):
            state = "queued"
            while state != "stopped":
                await asyncio.sleep(0.05)
                kept = await user.beta.environments.work.retrieve(
                    item["id"], environment_id=brain.environment_id
                )
                state = kept.state
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_a_crash_keeps_sessions_events_and_queue(brain):
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        sessions = client.beta.sessions
        agent = client.beta.agents.create(
            name="a",
            model="scripted",
            system=script(call("bash", command="x", save="x"), {"say": "${x}"}),
            tools=[TOOLSET],
        )
        make = {"agent": agent.id, "environment_id": brain.environment_id}
        held = sessions.create(**make, initial_events=[SAY])
        queued = sessions.create(**make, initial_events=[SAY])
        use = wait_for_call(sessions, held)
        wait_for_call(sessions, queued)
        with Anthropic(auth_token=brain.environment_key, base_url=brain.base_url) as worker:
            work = worker.beta.environments.work
            item = work.poll(brain.environment_id, block_ms=999)
            work.ack(item.id, environment_id=brain.environment_id)
            beaten = work.heartbeat(
                item.id,
                environment_id=brain.environment_id,
                expected_last_heartbeat="NO_HEARTBEAT",
            )
            before = [event.to_dict() for event in sessions.events.list(held.id)]
            brain.kill()
            brain.restart()
            assert [event.to_dict() for event in sessions.events.list(held.id)] == before
            again = work.heartbeat(
                item.id,
                environment_id=brain.environment_id,
                expected_last_heartbeat=beaten.last_heartbeat,
            )
            assert again.lease_extended
            other = work.poll(brain.environment_id, block_ms=999)
            assert {item.data.id, other.data.id} == {held.id, queued.id}
        result = {
            "type": "user.tool_result",
            "tool_use_id": use.id,
            "content": [{"type": "text", "text": "after the crash"}],
        }
        sessions.events.send(held.id, events=[result])
        wait(lambda: kinds(sessions, held)[-1] == "session.status_idle")
        last = list(sessions.events.list(held.id, types=["agent.message"]))
        assert last[0].content[0].text == "after the crash"


def kinds(sessions, session) -> list[str]:
    return [event.type for event in sessions.events.list(session.id)]


def wait_for_call(sessions, session):
    wait(lambda: "agent.tool_use" in kinds(sessions, session))
    return next(iter(sessions.events.list(session.id, types=["agent.tool_use"])))


def wait(condition, seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)

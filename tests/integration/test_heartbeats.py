"""Two hundred leases of one process, all written down: none misses its beats."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import anthropic
import pytest

from brain_process import TOOLSET, BrainProcess, script
from handiwork.brains.anthropic import AnthropicBrain
from handiwork.brains.holding import Records
from handiwork.model.session import WorkItem
from handiwork.store.sqlite import open_sqlite_store
from outer_brain import items

SESSIONS = 200
LEASE_SECONDS = 6
HELD_SECONDS = 13


async def _queue(client: anthropic.AsyncAnthropic, brain: BrainProcess) -> None:
    agent = await client.beta.agents.create(
        name="idle", model="scripted", system=script({"say": "done"}), tools=[TOOLSET]
    )
    text = {"type": "text", "text": "go"}
    for _ in range(SESSIONS):
        session = await client.beta.sessions.create(
            agent=agent.id, environment_id=brain.environment_id
        )
        await client.beta.sessions.events.send(
            session.id, events=[{"type": "user.message", "content": [text]}]
        )


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_no_lease_of_two_hundred_is_missed(tmp_path: Path) -> None:
    store = await open_sqlite_store(tmp_path / "control.db", control_key=bytes(32))
    with BrainProcess.start(tmp_path / "brain.db") as process:
        async with anthropic.AsyncAnthropic(
            api_key=process.api_key, base_url=process.base_url
        ) as client:
            await _queue(client, process)
        brain = AnthropicBrain(
            environment_id=process.environment_id,
            environment_key=process.environment_key,
            base_url=process.base_url,
            lease_seconds=LEASE_SECONDS,
            records=Records(store.leases, lambda: datetime.now(UTC)),
        )
        ends: list[float] = []

        async def idle(work: WorkItem) -> None:
            async with brain.hold(work):
                await asyncio.sleep(HELD_SECONDS)
                ends.append(asyncio.get_running_loop().time())

        claimed = 0
        async with asyncio.TaskGroup() as group:
            while claimed < SESSIONS:
                work = await brain.claim()
                if work is not None:
                    claimed += 1
                    group.create_task(idle(work))
        assert len(ends) == SESSIONS
        assert {(item["epoch"], item["state"]) for item in items(process)} == {(0, "stopped")}
        assert await store.leases.list() == []
        await brain.close()
    await store.close()

"""What changes of a session between two turns is there in the next one, though its lease was held."""

import time
from pathlib import Path

import pytest

from brain_process import TOOLSET
from workplace import Workplace, bash, turn

CONFIG = "[sessions]\nidle_seconds = 300.0\nlease_seconds = 10\n"
SECONDS = 30.0
CUSTOM = {
    "type": "custom",
    "name": "mine",
    "description": "d",
    "input_schema": {"type": "object"},
}
pytestmark = pytest.mark.timeout(180)


async def test_a_memory_store_that_is_attached_between_turns_is_mounted(tmp_path: Path) -> None:
    async with Workplace(tmp_path, CONFIG) as place, place._brain() as brain:
        store = await brain.beta.memory_stores.create(name="notes")
        await brain.beta.memory_stores.memories.create(store.id, path="/a.md", content="kept")
        job = await place.begin(
            [
                turn(bash("ls /mnt/memory 2>/dev/null || echo none; echo of the first >left")),
                turn(bash("cat /mnt/memory/notes/a.md; cat left")),
            ]
        )
        assert await job.turn() == ["none"]
        await brain.post(  # the SDK's own method takes files alone
            f"/v1/sessions/{job.id}/resources",
            cast_to=object,
            body={"type": "memory_store", "memory_store_id": store.id},
            options={"headers": {"anthropic-beta": "managed-agents-2026-04-01"}},
        )
        assert await job.turn() == ["keptof the first"]


async def test_a_toolset_that_is_given_between_turns_is_served(tmp_path: Path) -> None:
    async with Workplace(tmp_path, CONFIG) as place, place._brain() as brain:
        job = await place.begin([turn(bash("echo one")), turn(bash("echo two"))])
        assert await job.turn() == ["one"]
        updates = brain.beta.sessions.update
        await updates(job.id, agent={"tools": [CUSTOM]})
        await updates(job.id, agent={"tools": [TOOLSET, CUSTOM]})
        began = time.monotonic()
        assert await job.turn() == ["two"]
        assert time.monotonic() - began < SECONDS

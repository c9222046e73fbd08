"""Runs on disk: every field comes back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.run import Cost, Run, RunState, RunUsage
from handiwork.model.wire import OutputFile
from handiwork.store.sqlite import SqliteStore, open_sqlite_store

NOW = datetime(2026, 3, 1, 12, 30, 0, 654321, tzinfo=UTC)


@asynccontextmanager
async def opened(folder: Path, tenant: str = "default") -> AsyncIterator[SqliteStore]:
    store = await open_sqlite_store(folder / "c.db", control_key=bytes(32), tenant=tenant)
    try:
        yield store
    finally:
        await store.close()


async def test_every_field_survives(tmp_path: Path) -> None:
    record = Run(
        id="run_1",
        session_id="sesn_1",
        environment_id="env_1",
        agent_id="agent_1",
        model="scripted",
        tier="namespace",
        policy="web",
        task="say ü",
        timeout_seconds=60,
        state=RunState.TIMED_OUT,
        reason="why",
        stop_reason="end_turn",
        message="done",
        files=(OutputFile(path="a", size=1, mtime_ns=2),),
        usage=RunUsage(input_tokens=1, output_tokens=2),
        list_cost=Cost(amount="0.01", currency="USD"),
        duration_seconds=1.5,
        created_at=NOW,
        updated_at=NOW,
    )
    async with opened(tmp_path) as store:
        await store.runs.save(record)
    async with opened(tmp_path) as store:
        assert await store.runs.list() == [record]
    async with opened(tmp_path, "other") as store:
        assert await store.runs.list() == []

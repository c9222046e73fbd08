"""Processes on disk: every field comes back, and each tenant has its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.process import ProcessRecord, ProcessState
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
    record = ProcessRecord(
        id="proc_1",
        sandbox_id="sbx_1",
        argv=("sh", "-c", "echo ü"),
        cwd="/tmp",
        user="nobody",
        pid=12,
        state=ProcessState.LOST,
        exit_code=None,
        out_of_memory=True,
        reason="why ü",
        started_at=NOW,
        ended_at=NOW,
    )
    async with opened(tmp_path) as store:
        await store.processes.save(record)
    async with opened(tmp_path) as store:
        assert await store.processes.get("proc_1") == record
    async with opened(tmp_path, "other") as store:
        assert await store.processes.list("sbx_1") == []

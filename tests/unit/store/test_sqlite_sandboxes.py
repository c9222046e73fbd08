"""Records of sandboxes on disk: every field comes back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.sandbox import SandboxRecord, SandboxState
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
    record = SandboxRecord(
        id="sbx_1",
        session_id="sesn_1",
        agent_id="agent_1",
        tier="namespace",
        image="host",
        policy="web",
        state=SandboxState.FAILED,
        reason="why ü",
        env={"A": "1"},
        metadata={"m": "2"},
        ca_generation=3,
        created_at=NOW,
        updated_at=NOW,
    )
    async with opened(tmp_path) as store:
        await store.sandboxes.save(record)
    async with opened(tmp_path) as store:
        assert await store.sandboxes.get("sbx_1") == record
    async with opened(tmp_path, "other") as store:
        assert await store.sandboxes.list(include_gone=True) == []

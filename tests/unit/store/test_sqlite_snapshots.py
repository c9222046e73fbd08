"""Snapshots survive the process, and are one tenant's."""

from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.snapshot import Notice, Snapshot
from handiwork.store.sqlite import open_sqlite_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEPT = Snapshot(
    sandbox_id="sbx_1",
    number=1,
    created_at=NOW,
    reason="idle",
    image="abc",
    entries=1,
    content_bytes=2,
    new_bytes=3,
)


async def test_they_are_there_after_a_restart_and_another_tenant_has_none(tmp_path: Path) -> None:
    store = await open_sqlite_store(tmp_path / "c.db", control_key=bytes(32))
    await store.snapshots.put(KEPT)
    await store.snapshots.pin("sbx_1", "good", 1)
    await store.notices.add(Notice(id="ntc_1", session_id="sesn_1", text="x", at=NOW))
    await store.close()
    for tenant, count in (("default", 1), ("other", 0)):
        store = await open_sqlite_store(tmp_path / "c.db", control_key=bytes(32), tenant=tenant)
        try:
            assert len(await store.snapshots.list("sbx_1")) == count
            assert len(await store.snapshots.pins("sbx_1")) == count
            assert len(await store.snapshots.sandboxes()) == count
            assert len(await store.notices.list("sesn_1")) == count
        finally:
            await store.close()

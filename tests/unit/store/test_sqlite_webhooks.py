"""Webhooks on disk: every field comes back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.webhook import ReceivedWebhook
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
    record = ReceivedWebhook(
        id="event_1",
        kind="session.created",
        subject_id="sesn_1",
        known=True,
        data={"type": "session.created", "id": "sesn_1 ü"},
        received_at=NOW,
    )
    async with opened(tmp_path) as store:
        assert await store.webhooks.add(record, keep_from=NOW, keep_at_most=5)
    async with opened(tmp_path) as store:
        assert await store.webhooks.list() == [record]
    async with opened(tmp_path, "other") as store:
        assert await store.webhooks.list() == []

"""Sessions and events on disk: the numbering goes on after a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.session import Session, SessionState
from handiwork.store.sqlite import SqliteStore, open_sqlite_store

NOW = datetime(2026, 3, 1, 12, 30, 0, 654321, tzinfo=UTC)


@asynccontextmanager
async def opened(folder: Path, tenant: str = "default") -> AsyncIterator[SqliteStore]:
    store = await open_sqlite_store(folder / "c.db", control_key=bytes(32), tenant=tenant)
    try:
        yield store
    finally:
        await store.close()


async def test_sessions_and_numbering_survive(tmp_path: Path) -> None:
    session = Session(
        id="sesn_1",
        environment_id="env_1",
        title="ü",
        state=SessionState.SLEEPING,
        created_at=NOW,
        updated_at=NOW,
    )
    async with opened(tmp_path) as store:
        await store.sessions.save(session)
        first = await store.sessions.record("sesn_1", "started", {"n": [1, None, "ü"]}, NOW)
    async with opened(tmp_path) as store:
        second = await store.sessions.record("sesn_1", "idle", {}, NOW)
        assert second.sequence == 2
        assert list(await store.sessions.events("sesn_1")) == [first, second]
        assert await store.sessions.list() == [session]
    async with opened(tmp_path, "other") as store:
        assert list(await store.sessions.events("sesn_1")) == []

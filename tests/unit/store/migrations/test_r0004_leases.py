"""Leases of an older file are gone on with, and their secrets still open."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from sqlalchemy import text

from handiwork.model.environment import KeptLease
from handiwork.model.session import WorkItem
from handiwork.store.database import Database
from handiwork.store.sqlite import MIGRATIONS, open_sqlite_store
from older_database import make_older

LEASE = KeptLease(
    work=WorkItem(
        id="work_1", environment_id="env_1", kind="session", session_id="sesn_1", secret="s3cret"
    ),
    last_heartbeat="2026-11-21T01:40:50.9867621+00:00",
    ttl_seconds=60,
    beaten_at=datetime(2026, 11, 21, tzinfo=UTC),
)


async def test_a_lease_of_an_older_file_is_gone_on_with(tmp_path: Path) -> None:
    newest = await open_sqlite_store(tmp_path / "new.db", control_key=bytes(32))
    await newest.leases.save(LEASE)
    await newest.close()
    database = await Database.open(tmp_path / "new.db", MIGRATIONS)
    body, wrapped = await database.read(
        lambda at: (
            at.execute(text("SELECT body FROM leases")).scalar_one(),
            at.execute(text("SELECT wrapped FROM control_keys")).scalar_one(),
        )
    )
    await database.close()
    older = [
        ("leases", {"tenant": "default", "work_id": "work_1", "body": body}),
        ("control_keys", {"tenant": "default", "wrapped": wrapped}),
    ]
    make_older(tmp_path / "c.db", "0003", older)
    store = await open_sqlite_store(tmp_path / "c.db", control_key=bytes(32))
    try:
        assert await store.leases.list() == [LEASE]
        assert msgspec.structs.asdict(LEASE.work)["secret"] == "s3cret"
        await store.leases.remove("env_1", "work_1")
        assert await store.leases.list() == []
    finally:
        await store.close()

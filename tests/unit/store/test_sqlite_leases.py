"""Leases in the file: over restarts, and never with their secrets in clear."""

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import select, update

from handiwork.model.environment import KeptLease
from handiwork.model.errors import ConfigError
from handiwork.model.session import WorkItem
from handiwork.store.control_secrets import SqliteControlSecrets
from handiwork.store.database import Database
from handiwork.store.sqlite import MIGRATIONS, open_sqlite_store
from handiwork.store.sqlite_leases import SqliteLeases
from handiwork.store.tables import leases

KEY = bytes(32)
SECRET = "eyJzZXNzaW9uc190b2tlbiI6-the-secret-of-the-item"
LEASE = KeptLease(
    work=WorkItem(
        id="work_1", environment_id="env_1", kind="session", session_id="sesn_1", secret=SECRET
    ),
    last_heartbeat="2026-11-21T01:40:50.9867621+00:00",
    ttl_seconds=60,
    beaten_at=datetime(2026, 11, 21, tzinfo=UTC),
)


async def test_a_lease_survives_a_restart_and_its_secret_is_not_in_the_file(
    tmp_path: Path,
) -> None:
    store = await open_sqlite_store(tmp_path / "c.db", control_key=KEY)
    await store.leases.save(LEASE)
    await store.close()
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert SECRET.encode() not in files
    assert LEASE.last_heartbeat.encode() in files
    again = await open_sqlite_store(tmp_path / "c.db", control_key=KEY)
    try:
        assert await again.leases.list() == [LEASE]
    finally:
        await again.close()


async def test_a_secret_opens_for_its_own_work_item_only(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "c.db", MIGRATIONS)
    try:
        secrets = await SqliteControlSecrets.open(database, "default", KEY)
        kept = SqliteLeases(database, "default", secrets)
        other = msgspec.structs.replace(LEASE.work, id="work_2", secret="of another")
        await kept.save(msgspec.structs.replace(LEASE, work=other))
        body = await database.read(lambda at: at.execute(select(leases.c.body)).scalar_one())
        moved = update(leases).values(body=body.replace("work_2", "work_1"))
        await database.write(lambda to: to.execute(moved))
        with pytest.raises(ConfigError, match="work_1"):
            await kept.list()
    finally:
        await database.close()

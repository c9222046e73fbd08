"""What the file keeps over restarts, kills and between tenants; what is refused at the start."""

import asyncio
import os
import signal
import stat
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from handiwork.model.errors import ConfigError
from handiwork.model.session import Session, SessionState
from handiwork.model.tool import ToolCall
from handiwork.store.database import Database
from handiwork.store.sqlite import MIGRATIONS, open_sqlite_store
from handiwork.store.tables import metadata

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = bytes(32)

CRASHING = """
import asyncio, sys
from datetime import datetime, UTC
from pathlib import Path
from handiwork.model.tool import ToolCall, text_result
from handiwork.store.sqlite import open_sqlite_store

async def main():
    store = await open_sqlite_store(Path(sys.argv[1]), control_key=bytes(32))
    n = 0
    while True:
        call = ToolCall(id=f"sevt_{n}", session_id="sesn_1", name="bash", input={})
        await store.ledger.start(call, datetime(2026, 3, 1, tzinfo=UTC))
        print("started", n, flush=True)
        await store.ledger.store(text_result(call, f"result {n}"), datetime(2026, 3, 1, tzinfo=UTC))
        print("stored", n, flush=True)
        n += 1

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "control.db"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CRASHING, str(path), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout
    told: list[list[str]] = []
    while len(told) < 61:
        told.append((await process.stdout.readline()).decode().split())
    process.send_signal(signal.SIGKILL)
    told += [line.split() for line in (await process.stdout.read()).decode().splitlines()]
    await process.wait()

    store = await open_sqlite_store(path, control_key=KEY)
    try:
        stored = {n for what, n in told if what == "stored"}
        for what, n in told:
            entry = await store.ledger.get(f"sevt_{n}")
            assert entry is not None, (what, n)
            if n in stored:
                assert entry.state == "stored"
                assert entry.result is not None
    finally:
        await store.close()


async def test_the_migrations_make_the_tables_of_the_schema(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "c.db", MIGRATIONS)
    try:
        difference = await database.read(
            lambda at: compare_metadata(MigrationContext.configure(at), metadata)
        )
        assert difference == []
    finally:
        await database.close()


def test_every_table_begins_with_the_tenant() -> None:
    for table in metadata.sorted_tables:
        first = next(iter(table.primary_key.columns))
        assert first.name == "tenant", table.name


async def test_tenants_of_one_file_do_not_see_each_other(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    store = await open_sqlite_store(path, control_key=KEY)
    call = ToolCall(id="sevt_1", session_id="sesn_1", name="bash", input={})
    session = Session(
        id="sesn_1",
        environment_id="e",
        state=SessionState.ACTIVE,
        created_at=NOW,
        updated_at=NOW,
    )
    await store.sessions.save(session)
    await store.ledger.start(call, NOW)
    await store.control_secrets.put("key", "of default")
    await store.close()

    other = await open_sqlite_store(path, control_key=KEY, tenant="other")
    try:
        assert await other.sessions.list() == []
        assert await other.ledger.get("sevt_1") is None
        assert await other.control_secrets.get("key") is None
        await other.ledger.start(call, NOW)
    finally:
        await other.close()


async def test_control_secrets_are_not_in_the_file_and_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    store = await open_sqlite_store(path, control_key=KEY)
    await store.control_secrets.put("key", "sk-very-secret-value")
    await store.close()
    for file in tmp_path.iterdir():
        assert b"very-secret" not in file.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = await open_sqlite_store(path, control_key=KEY)
    try:
        assert await again.control_secrets.get("key") == "sk-very-secret-value"
    finally:
        await again.close()


async def test_another_control_key_is_refused_and_the_file_released(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    await (await open_sqlite_store(path, control_key=KEY)).close()
    with pytest.raises(ConfigError, match="control key"):
        await open_sqlite_store(path, control_key=os.urandom(32))
    await (await open_sqlite_store(path, control_key=KEY)).close()

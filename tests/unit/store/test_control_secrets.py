"""Our own secrets: sealed in the file, bound to their row."""

import stat
from pathlib import Path

import pytest
from sqlalchemy import update

from handiwork.model.errors import ConfigError
from handiwork.store.control_secrets import SqliteControlSecrets
from handiwork.store.database import Database
from handiwork.store.sqlite import MIGRATIONS, open_sqlite_store
from handiwork.store.tables import control_secrets

KEY = bytes(32)


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


async def test_a_row_moved_to_another_name_does_not_open(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "c.db", MIGRATIONS)
    try:
        secrets = await SqliteControlSecrets.open(database, "default", KEY)
        await secrets.put("weak", "one")
        await database.write(lambda to: to.execute(update(control_secrets).values(name="strong")))
        with pytest.raises(ConfigError, match="strong"):
            await secrets.get("strong")
    finally:
        await database.close()


async def test_each_tenant_has_its_own_data_key(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "c.db", MIGRATIONS)
    try:
        one = await SqliteControlSecrets.open(database, "one", KEY)
        two = await SqliteControlSecrets.open(database, "two", KEY)
        await one.put("key", "of one")
        await database.write(lambda to: to.execute(update(control_secrets).values(tenant="two")))
        with pytest.raises(ConfigError):
            await two.get("key")
    finally:
        await database.close()

"""What operators write, on disk: old policies stay, old secrets do not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from handiwork.model.policy import Policy
from handiwork.model.secret import SealedSecret
from handiwork.store.database import Database
from handiwork.store.sqlite import MIGRATIONS, SqliteStore, open_sqlite_store

NOW = datetime(2026, 3, 1, 12, 30, 0, 654321, tzinfo=UTC)


@asynccontextmanager
async def opened(folder: Path, tenant: str = "default") -> AsyncIterator[SqliteStore]:
    store = await open_sqlite_store(folder / "c.db", control_key=bytes(32), tenant=tenant)
    try:
        yield store
    finally:
        await store.close()


async def rows_of(folder: Path, query: str) -> list[object]:
    database = await Database.open(folder / "c.db", MIGRATIONS)
    try:
        return [row[0] for row in await database.read(lambda at: at.execute(text(query)).all())]
    finally:
        await database.close()


async def test_every_version_of_a_policy_is_kept(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for description in ("one", "two"):
            policy = Policy(name="web", rules=(), description=description)
            await store.policies.put(policy, NOW)
        await store.policies.delete("web")
    assert await rows_of(tmp_path, "SELECT version FROM policies ORDER BY version") == [1, 2]
    assert await rows_of(tmp_path, "SELECT live FROM policies") == [0, 0]


async def test_an_old_secret_is_gone_from_the_table(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for version in (1, 2):
            sealed = SealedSecret(
                name="key",
                version=version,
                hosts=("a.test",),
                ephemeral_key=b"e" * 32,
                nonce=b"n" * 12,
                ciphertext=b"c" * version,
            )
            await store.secrets.put(sealed, NOW)
        assert await store.secrets.sealed(["key"]) == [sealed]
    assert await rows_of(tmp_path, "SELECT version FROM secrets") == [2]

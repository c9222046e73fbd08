"""The audit index on disk: each record under the tenant it names, whoever indexes it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.audit import AuditRecord
from handiwork.store.sqlite import SqliteStore, open_sqlite_store

NOW = datetime(2026, 3, 1, 12, 30, 0, 654321, tzinfo=UTC)


@asynccontextmanager
async def opened(folder: Path, tenant: str = "default") -> AsyncIterator[SqliteStore]:
    store = await open_sqlite_store(folder / "c.db", control_key=bytes(32), tenant=tenant)
    try:
        yield store
    finally:
        await store.close()


def record(id: str, tenant: str = "default") -> AuditRecord:
    return AuditRecord(
        id=id, at=NOW, tenant=tenant, binding="b", kind="http", allowed=True, rules=("a:b/c",)
    )


async def test_records_and_positions_survive_and_tenants_are_apart(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        both = [record("aud_1"), record("aud_2", tenant="other")]
        await store.audit.append(both, segment="s.jsonl", position=77)
    async with opened(tmp_path) as store:
        assert await store.audit.query() == [both[0]]
        assert await store.audit.positions() == {"s.jsonl": 77}
    async with opened(tmp_path, "other") as store:
        assert await store.audit.query() == [both[1]]


async def test_many_records_are_one_commit(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        many = [record(f"aud_{n}") for n in range(5000)]
        await store.audit.append(many, segment="s", position=1)
        assert len(await store.audit.query(limit=10_000)) == 5000

"""Processes that outlive their call, in every store."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from handiwork.model.errors import NotFoundError
from handiwork.model.process import ProcessRecord, ProcessState
from handiwork.store.protocol import Store
from handiwork.store.sqlite import open_sqlite_store
from handiwork.testing.store import MemoryStore

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    path = tmp_path / "control.db"
    found: Store = (
        MemoryStore()
        if request.param == "memory"
        else await open_sqlite_store(path, control_key=bytes(32))
    )
    yield found
    await found.close()


def process(id: str, seconds: float = 0, **fields: Any) -> ProcessRecord:
    given = {
        "sandbox_id": "sbx_a",
        "argv": ("serve", "ü"),
        "cwd": "/",
        "user": "root",
        "pid": 7,
        "started_at": NOW + timedelta(seconds=seconds),
    }
    return ProcessRecord(id=id, **given | fields)


async def test_save_get_list_delete(store: Store) -> None:
    await store.processes.save(process("proc_a"))
    await store.processes.save(process("proc_b", 1, sandbox_id="sbx_b"))
    await store.processes.save(process("proc_c", 2))
    ended = process("proc_c", 2, state=ProcessState.EXITED, exit_code=3, reason="why", ended_at=NOW)
    await store.processes.save(ended)
    assert await store.processes.get("proc_c") == ended
    assert await store.processes.list("sbx_a") == [ended, process("proc_a")]
    assert await store.processes.list("sbx_a", limit=1) == [ended]
    assert await store.processes.list("sbx_none") == []
    assert [one.id for one in await store.processes.running()] == ["proc_a", "proc_b"]
    await store.processes.delete("proc_a")
    await store.processes.delete("proc_a")
    with pytest.raises(NotFoundError, match="proc_a"):
        await store.processes.get("proc_a")


async def test_sqlite_refuses_one_of_another_tenant(tmp_path: Path) -> None:
    store = await open_sqlite_store(tmp_path / "control.db", control_key=bytes(32))
    try:
        with pytest.raises(ValueError, match="tenant"):
            await store.processes.save(process("proc_a", tenant="other"))
    finally:
        await store.close()

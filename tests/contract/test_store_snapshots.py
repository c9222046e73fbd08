"""The contract of snapshots and notices in `store/protocol.py`, on SQLite and on the fake."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handiwork.model.errors import ConflictError, NotFoundError
from handiwork.model.snapshot import MAX_PINS, Notice, Snapshot, SnapshotStatus
from handiwork.store.protocol import Store
from handiwork.store.sqlite import open_sqlite_store
from handiwork.testing.store import MemoryStore

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    store: Store = (
        MemoryStore()
        if request.param == "memory"
        else await open_sqlite_store(tmp_path / "control.db", control_key=bytes(32))
    )
    yield store
    await store.close()


def snapshot(sandbox_id: str, number: int, **fields: Any) -> Snapshot:
    defaults: dict[str, Any] = {
        "created_at": NOW,
        "reason": "idle",
        "image": "abc",
        "entries": 3,
        "content_bytes": 5,
        "new_bytes": 2,
    }
    return Snapshot(sandbox_id=sandbox_id, number=number, **(defaults | fields))


class TestSnapshots:
    async def test_put_list_remove(self, store: Store) -> None:
        first, second = snapshot("sbx_1", 9), snapshot("sbx_1", 10, skipped=("/x is a socket",))
        for one in (first, second, snapshot("sbx_2", 1)):
            await store.snapshots.put(one)
        assert await store.snapshots.list("sbx_1") == [second, first]
        assert await store.snapshots.sandboxes() == ["sbx_1", "sbx_2"]
        changed = snapshot("sbx_1", 9, reason="request", pins=("not kept",))
        await store.snapshots.put(changed)
        assert (await store.snapshots.list("sbx_1"))[1] == msgspec.structs.replace(changed, pins=())
        await store.snapshots.remove("sbx_1", 9)
        await store.snapshots.remove("sbx_1", 9)
        assert await store.snapshots.list("sbx_1") == [second]
        assert await store.snapshots.list("sbx_none") == []

    async def test_a_pin_keeps_one_until_it_is_gone(self, store: Store) -> None:
        for number in (1, 2):
            await store.snapshots.put(snapshot("sbx_1", number))
        with pytest.raises(NotFoundError):
            await store.snapshots.pin("sbx_1", "good", 3)
        await store.snapshots.pin("sbx_1", "good", 1)
        await store.snapshots.pin("sbx_1", "also", 1)
        assert await store.snapshots.pins("sbx_1") == {"good": 1, "also": 1}
        assert [one.pins for one in await store.snapshots.list("sbx_1")] == [(), ("also", "good")]
        with pytest.raises(ConflictError, match="pinned"):
            await store.snapshots.remove("sbx_1", 1)
        await store.snapshots.pin("sbx_1", "good", 2)
        await store.snapshots.unpin("sbx_1", "also")
        with pytest.raises(NotFoundError):
            await store.snapshots.unpin("sbx_1", "also")
        await store.snapshots.remove("sbx_1", 1)
        assert [one.pins for one in await store.snapshots.list("sbx_1")] == [("good",)]
        assert await store.snapshots.pins("sbx_2") == {}

    async def test_so_many_pins_and_no_more(self, store: Store) -> None:
        await store.snapshots.put(snapshot("sbx_1", 1))
        for number in range(MAX_PINS):
            await store.snapshots.pin("sbx_1", f"p{number}", 1)
        await store.snapshots.pin("sbx_1", "p0", 1)
        with pytest.raises(ConflictError, match="pins already"):
            await store.snapshots.pin("sbx_1", "more", 1)

    async def test_how_the_last_try_went(self, store: Store) -> None:
        assert await store.snapshots.status("sbx_1") == SnapshotStatus(sandbox_id="sbx_1")
        failed = SnapshotStatus(sandbox_id="sbx_1", number=2, failure="full", failed_at=NOW)
        await store.snapshots.tell(failed)
        assert await store.snapshots.status("sbx_1") == failed
        well = SnapshotStatus(sandbox_id="sbx_1", number=3, taken_at=NOW)
        await store.snapshots.tell(well)
        assert await store.snapshots.status("sbx_1") == well


class TestNotices:
    async def test_those_of_a_session_until_they_are_told(self, store: Store) -> None:
        made = [
            Notice(
                id=f"ntc_{name}",
                session_id="sesn_1",
                text=f"it was {name}",
                at=NOW + timedelta(seconds=at),
            )
            for name, at in (("b", 2), ("a", 1))
        ]
        other = Notice(id="ntc_c", session_id="sesn_2", text="x", at=NOW)
        for one in (*made, other):
            await store.notices.add(one)
        assert list(await store.notices.list("sesn_1")) == made[::-1]
        await store.notices.remove(["ntc_a", "ntc_none"])
        await store.notices.remove([])
        assert list(await store.notices.list("sesn_1")) == [made[0]]
        assert list(await store.notices.list("sesn_2")) == [other]

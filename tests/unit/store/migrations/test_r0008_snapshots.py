"""An older file gets the tables of snapshots and notices, empty."""

from pathlib import Path

from handiwork.store.sqlite import open_sqlite_store
from older_database import make_older


async def test_an_older_file_has_no_snapshots(tmp_path: Path) -> None:
    make_older(tmp_path / "c.db", "0005", [])
    store = await open_sqlite_store(tmp_path / "c.db", control_key=bytes(32))
    try:
        assert await store.snapshots.sandboxes() == []
        assert list(await store.notices.list("sesn_1")) == []
    finally:
        await store.close()

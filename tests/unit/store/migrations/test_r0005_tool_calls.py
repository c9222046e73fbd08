"""Tool calls of an older file are answered for, as they were."""

from pathlib import Path

from handiwork.store.sqlite import open_sqlite_store
from older_database import make_older


async def test_an_unanswered_call_of_an_older_file_stays_open(tmp_path: Path) -> None:
    row = {
        "tenant": "default",
        "tool_use_id": "sevt_1",
        "session_id": "sesn_1",
        "name": "bash",
        "custom": False,
        "state": "started",
        "reason": "",
        "result": None,
        "started_us": 1,
        "updated_us": 2,
    }
    make_older(tmp_path / "c.db", "0004", [("tool_calls", row)])
    store = await open_sqlite_store(tmp_path / "c.db", control_key=bytes(32))
    try:
        (entry,) = await store.ledger.open("sesn_1")
        assert (entry.tool_use_id, entry.name, entry.state) == ("sevt_1", "bash", "started")
        assert await store.ledger.get("sesn_1", "sevt_1") == entry
    finally:
        await store.close()

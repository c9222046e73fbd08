"""The trace of tool calls on disk: what was acknowledged survives a kill at any moment."""

import asyncio
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from handiwork.store.database import Database
from handiwork.store.sqlite import MIGRATIONS, open_sqlite_store

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
        await store.ledger.store("sesn_1", text_result(call, f"result {n}"), datetime(2026, 3, 1, tzinfo=UTC))
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
            entry = await store.ledger.get("sesn_1", f"sevt_{n}")
            assert entry is not None, (what, n)
            if n in stored:
                assert entry.state == "stored"
                assert entry.result is not None
    finally:
        await store.close()


async def test_what_is_open_is_found_by_index(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "c.db", MIGRATIONS)
    try:
        query = text(
            "EXPLAIN QUERY PLAN SELECT * FROM tool_calls"
            " WHERE tenant = 'default' AND session_id = 's' AND state IN ('started', 'stored')"
        )
        [plan] = await database.read(lambda at: at.execute(query).all())
        assert "USING INDEX tool_calls_of_session" in plan.detail
    finally:
        await database.close()

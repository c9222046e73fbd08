"""What the file keeps over restarts, kills and between tenants; what is refused at the start."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.model.errors import ConfigError
from handiwork.model.session import Session, SessionState
from handiwork.model.tool import ToolCall
from handiwork.store.sqlite import open_sqlite_store

NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY = bytes(32)


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
        assert await other.ledger.get("sesn_1", "sevt_1") is None
        assert await other.control_secrets.get("key") is None
        await other.ledger.start(call, NOW)
    finally:
        await other.close()


async def test_another_control_key_is_refused_and_the_file_released(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    await (await open_sqlite_store(path, control_key=KEY)).close()
    with pytest.raises(ConfigError, match="control key"):
        await open_sqlite_store(path, control_key=os.urandom(32))
    await (await open_sqlite_store(path, control_key=KEY)).close()

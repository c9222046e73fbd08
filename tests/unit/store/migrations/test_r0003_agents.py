"""Settings of agents of an older file are kept, and belong to no environment yet."""

from datetime import UTC, datetime
from pathlib import Path

from handiwork.model.agent import AgentSettings
from handiwork.store.sqlite import open_sqlite_store
from older_database import make_older

BODY = '{"agent_id": "agent_1", "tenant": "default", "policy": "p", "updated_at": "2026-01-01T00:00:00Z"}'


async def test_settings_are_kept_without_an_environment(tmp_path: Path) -> None:
    row = {"tenant": "default", "agent_id": "agent_1", "body": BODY}
    make_older(tmp_path / "c.db", "0002", [("agents", row)])
    store = await open_sqlite_store(tmp_path / "c.db", control_key=bytes(32))
    try:
        kept = AgentSettings(
            agent_id="agent_1", policy="p", updated_at=datetime(2026, 1, 1, tzinfo=UTC)
        )
        assert await store.agents.list() == [kept]
        assert await store.agents.get("", "agent_1") == kept
    finally:
        await store.close()

"""Rows: inserted or replaced, read back as what they were."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.model.agent import AgentSettings
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.sqlite import MIGRATIONS
from handiwork.store.tables import agents

AGENT = AgentSettings(agent_id="agent_1", updated_at=datetime(2026, 3, 1, tzinfo=UTC))


async def test_upsert_replaces_its_own_row_only(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "c.db", MIGRATIONS)
    one = {"tenant": "default", "environment_id": "", "agent_id": "agent_1"}
    two = {"tenant": "other", "environment_id": "", "agent_id": "agent_1"}
    try:
        for key, policy in ((one, "a"), (two, "b"), (one, "c")):
            values = {"body": rows.encoded(AgentSettings(policy=policy, **_fields()))}
            await database.write(lambda to, k=key, v=values: rows.upsert(to, agents, k, v))
        first = await database.read(lambda at: rows.body(at, agents, one, AgentSettings))
        second = await database.read(lambda at: rows.body(at, agents, two, AgentSettings))
        none = await database.read(
            lambda at: rows.body(at, agents, one | {"agent_id": "x"}, AgentSettings)
        )
        assert (first.policy, second.policy, none) == ("c", "b", None)
    finally:
        await database.close()


def test_a_body_of_an_older_version_gets_the_defaults() -> None:
    text = '{"agent_id": "agent_1", "updated_at": "2026-03-01T00:00:00Z", "dropped": 1}'
    assert rows.decoded(text, AgentSettings) == AGENT


def test_another_tenant_is_refused() -> None:
    rows.check_tenant("default", "default")
    with pytest.raises(ValueError, match="other"):
        rows.check_tenant("default", "other")


def _fields() -> dict[str, object]:
    return {"agent_id": AGENT.agent_id, "updated_at": AGENT.updated_at}

"""Agents and environments as they are kept; the SDK's tests walk the rest."""

import pytest

from handiwork.brains.local.catalog import ensure_environments
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.paging import Page
from handiwork.brains.local.shapes import AgentCreate, AgentReference, AgentUpdate

SCRIPT = '{"turns": [{"steps": [{"say": "x"}]}]}'


async def test_a_session_pins_the_version_it_names(services):
    agent = await services.catalog.create_agent(
        AgentCreate(name="one", model="scripted", system=SCRIPT)
    )
    await services.catalog.update_agent(agent["id"], AgentUpdate(name="two"))
    pinned = await services.catalog.snapshot(AgentReference(id=agent["id"], version=1))
    newest = await services.catalog.snapshot(agent["id"])
    assert (pinned["name"], newest["name"]) == ("one", "two")
    assert "metadata" not in pinned


async def test_an_archived_agent_starts_no_session(services):
    agent = await services.catalog.create_agent(
        AgentCreate(name="one", model="scripted", system=SCRIPT)
    )
    await services.catalog.archive("agent", agent["id"])
    with pytest.raises(WireError, match="archived"):
        await services.catalog.snapshot(agent["id"])


async def test_a_refused_update_leaves_the_agent_as_it_was(services):
    agent = await services.catalog.create_agent(
        AgentCreate(name="one", model="scripted", system=SCRIPT)
    )
    with pytest.raises(WireError, match="not valid JSON"):
        await services.catalog.update_agent(agent["id"], AgentUpdate(system="no script"))
    assert (await services.catalog.agent(agent["id"]))["version"] == 1


async def test_environments_are_ensured_once(services):
    for _ in range(2):
        await services.database.write(
            lambda c: ensure_environments(c, [("env_1", "local")], services.clock)
        )
    listed = await services.catalog.list("environment", [], Page(10, "desc"))
    assert [each["id"] for each in listed["data"]] == ["env_1"]

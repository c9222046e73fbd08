"""Settings of agents hold in their own environment; those that name none hold nowhere by guess."""

from datetime import UTC, datetime

import msgspec
import pytest

from handiwork.model.agent import AgentSettings
from handiwork.model.errors import ConfigError
from handiwork.sessions.agents import adopt_agents, environment_of, settings_of
from handiwork.testing.store import MemoryAgents

UNBOUND = AgentSettings(agent_id="agent_1", policy="p", updated_at=datetime(2026, 1, 1, tzinfo=UTC))
BOUND = msgspec.structs.replace(UNBOUND, environment_id="env_1")


async def test_settings_hold_in_their_own_environment() -> None:
    agents = MemoryAgents()
    await agents.put(BOUND)
    assert await settings_of(agents, "env_1", "agent_1") == BOUND
    assert await settings_of(agents, "env_2", "agent_1") is None
    assert await settings_of(agents, "env_1", "agent_2") is None
    assert await settings_of(agents, "env_1", "") is None


async def test_settings_that_name_no_environment_refuse_instead_of_being_dropped() -> None:
    agents = MemoryAgents()
    await agents.put(UNBOUND)
    with pytest.raises(ConfigError, match="handiwork agent set agent_1 --environment ID"):
        await settings_of(agents, "env_1", "agent_1")
    assert await settings_of(agents, "env_1", "agent_2") is None


async def test_deciding_for_one_environment_widens_nothing_in_another() -> None:
    agents = MemoryAgents()
    await agents.put(UNBOUND)
    await agents.put(BOUND)
    await adopt_agents(agents, ["env_1", "env_2"])
    assert await settings_of(agents, "env_1", "agent_1") == BOUND
    with pytest.raises(ConfigError, match="name no environment"):
        await settings_of(agents, "env_2", "agent_1")
    other = msgspec.structs.replace(UNBOUND, environment_id="env_2")
    await agents.put(other)
    await adopt_agents(agents, ["env_1", "env_2"])
    assert await agents.list() == [BOUND, other]


async def test_what_an_environment_has_of_its_own_is_not_written_over() -> None:
    agents = MemoryAgents()
    bound = msgspec.structs.replace(BOUND, policy="its own")
    await agents.put(UNBOUND)
    await agents.put(bound)
    await adopt_agents(agents, ["env_1"])
    assert await agents.list() == [bound]


async def test_the_only_environment_takes_over_what_names_none() -> None:
    agents = MemoryAgents()
    await agents.put(UNBOUND)
    await adopt_agents(agents, ["env_1", "env_2"])
    assert await agents.list() == [UNBOUND]
    await adopt_agents(agents, ["env_1"])
    assert await agents.list() == [BOUND]


def test_the_environment_is_the_named_or_the_only_one() -> None:
    assert environment_of("", ["env_1"]) == "env_1"
    assert environment_of("env_2", ["env_1", "env_2"]) == "env_2"
    with pytest.raises(ConfigError, match="served: env_1, env_2"):
        environment_of("", ["env_2", "env_1"])
    with pytest.raises(ConfigError, match="'env_3' is not served here; served: env_1"):
        environment_of("env_3", ["env_1"])
    with pytest.raises(ConfigError, match="served: none"):
        environment_of("", [])

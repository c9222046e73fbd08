"""Which settings of agents hold: those of the environment whose brain names the agent, and no others."""

from collections.abc import Collection

import msgspec

from handiwork.model.agent import AgentSettings
from handiwork.model.errors import ConfigError
from handiwork.observe import log
from handiwork.store.protocol import Agents


async def settings_of(agents: Agents, environment_id: str, agent_id: str) -> AgentSettings | None:
    """Return what the operator decided for an agent of an environment; None: nothing.

    ConfigError where it was decided for an agent of this id by a version that did not ask of which
    environment: it may be meant to narrow this very one, so nothing else may hold in its place.
    """
    if not agent_id:
        return None
    found = await agents.get(environment_id, agent_id)
    if found is None and await agents.get("", agent_id) is not None:
        raise ConfigError(
            f"the settings of agent {agent_id} name no environment, and more than one is served;"
            f" write them again with `handiwork agent set {agent_id} --environment ID`"
        )
    return found


def environment_of(named: str, served: Collection[str]) -> str:
    """Return the environment that is meant: the one named, else the only one. ConfigError: neither."""
    if named in served:
        return named
    known = ", ".join(sorted(served)) or "none"
    if named:
        raise ConfigError(f"environment: {named[:80]!r} is not served here; served: {known}")
    if len(served) != 1:
        raise ConfigError(f"environment: name the agent's environment; served: {known}")
    (only,) = served
    return only


async def adopt_agents(agents: Agents, served: Collection[str]) -> None:
    """Give settings without an environment the only one that is served, where it has none of its own.

    They go once every environment has its own. Until then they refuse in those that have not: what
    they narrow must not become wide because another environment was decided for.
    """
    for one in [one for one in await agents.list() if not one.environment_id]:
        without = [name for name in served if await agents.get(name, one.agent_id) is None]
        if len(served) == 1 and without:
            await agents.put(msgspec.structs.replace(one, environment_id=without[0]))
        elif without or not served:
            log.get("agents").warning(
                "settings without an environment", agent=one.agent_id, environments=without
            )
            continue
        await agents.remove("", one.agent_id)

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
    """Give settings without an environment the only one that is served; tell where there are more."""
    unbound = [one for one in await agents.list() if not one.environment_id]
    if unbound and len(served) != 1:
        ids = [one.agent_id for one in unbound]
        log.get("agents").warning("settings without an environment", agents=ids)
        return
    for one in unbound:
        (only,) = served
        await agents.put(msgspec.structs.replace(one, environment_id=only))

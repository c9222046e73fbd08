"""`/api/agents`: what the operator decides for agents of the brain."""

from typing import Annotated

from litestar import Router, get, put
from litestar.params import FromPath, JSONBody, QueryParameter

from handiwork.api.control import Control, Injected
from handiwork.model.agent import AgentSettings
from handiwork.model.errors import ConfigError, NotFoundError
from handiwork.model.sandbox import TIERS, limits_of
from handiwork.model.wire import AgentBody, Listing
from handiwork.sessions.agents import adopt_agents, environment_of
from handiwork.sessions.credentials import check_variables

MAX_ID_CHARS = 128

Environment = Annotated[str, QueryParameter(description="Needed where more than one is served.")]


@get("/")
async def list_agents(control: Injected) -> Listing[AgentSettings]:
    """List the agents that something was decided for."""
    return Listing(data=tuple(await control.store.agents.list()))


@get("/{agent_id:str}")
async def get_agent(
    control: Injected, agent_id: FromPath[str], environment: Environment = ""
) -> AgentSettings:
    """Tell what was decided for an agent of an environment."""
    environment_id = environment_of(environment, control.environment_ids)
    found = await control.store.agents.get(environment_id, agent_id)
    if found is None:
        raise NotFoundError(
            f"nothing was decided for the agent {agent_id[:80]!r} of environment {environment_id}"
        )
    return found


@put("/{agent_id:str}")
async def put_agent(
    control: Injected, agent_id: FromPath[str], data: JSONBody[AgentBody]
) -> AgentSettings:
    """Decide on an agent: policy and withdrawals hold at once, tier and variables from the next start."""
    await _check(control, agent_id, data)
    settings = AgentSettings(
        environment_id=environment_of(data.environment, control.environment_ids),
        agent_id=agent_id,
        tenant=control.tenant,
        tier=data.tier,
        policy=data.policy,
        image=data.image,
        size=data.size,
        limits=data.limits,
        variables=data.variables,
        updated_at=control.now(),
    )
    await control.store.agents.put(settings)
    await adopt_agents(control.store.agents, control.environment_ids)
    await control.sandboxes.refresh()
    return settings


async def _check(control: Control, agent_id: str, body: AgentBody) -> None:
    if len(agent_id) > MAX_ID_CHARS or not agent_id.isprintable():
        raise ConfigError(f"agent id {agent_id[:80]!r} is not valid")
    if body.tier and body.tier not in TIERS:
        raise ConfigError(f"tier: {body.tier[:80]!r} is no tier; use one of {', '.join(TIERS)}")
    limits_of(body.size, body.limits)
    if body.image:
        await control.images.resolve(body.image)
    check_variables(tuple(body.variables))
    known = {info.name for info in await control.store.secrets.list()} if body.variables else set()
    for variable, secret in body.variables.items():
        if secret not in known:
            raise ConfigError(
                f"variables: there is no secret {secret[:80]!r} for {variable}; set it first"
            )
    if body.policy:
        try:
            await control.store.policies.get(body.policy)
        except NotFoundError:
            raise ConfigError(
                f"policy: there is no policy {body.policy[:80]!r}; apply it first"
            ) from None


routes = Router("/api/agents", route_handlers=[list_agents, get_agent, put_agent])

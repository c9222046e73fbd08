"""Routes of agents and environments."""

from litestar import delete, get, post

from handiwork.brains.local.keys import Kind
from handiwork.brains.local.paging import number, page
from handiwork.brains.local.services import (
    Answer,
    AnyRequest,
    answer,
    body_of,
    caller_of,
    name_of,
    query_of,
    services_of,
)
from handiwork.brains.local.shapes import (
    AgentCreate,
    AgentUpdate,
    EnvironmentCreate,
    EnvironmentUpdate,
)

MAX_VERSION = 1_000_000


@post("/v1/agents", status_code=200)
async def create_agent(request: AnyRequest) -> Answer:
    """Create an agent."""
    caller_of(request, Kind.API)
    body = await body_of(request, AgentCreate)
    return answer(await services_of(request).catalog.create_agent(body))


@get("/v1/agents")
async def list_agents(request: AnyRequest) -> Answer:
    """List agents, newest first."""
    caller_of(request, Kind.API)
    query = query_of(request)
    wanted = page(query, limit=20, most=100, order="desc")
    return answer(await services_of(request).catalog.list("agent", query, wanted))


@get("/v1/agents/{agent_id:str}")
async def get_agent(request: AnyRequest) -> Answer:
    """Return an agent, or one of its versions."""
    caller_of(request, Kind.API)
    version = number(query_of(request), "version", 1, MAX_VERSION)
    catalog = services_of(request).catalog
    return answer(await catalog.agent(name_of(request, "agent_id"), version))


@post("/v1/agents/{agent_id:str}", status_code=200)
async def update_agent(request: AnyRequest) -> Answer:
    """Make a new version of an agent."""
    caller_of(request, Kind.API)
    body = await body_of(request, AgentUpdate)
    catalog = services_of(request).catalog
    return answer(await catalog.update_agent(name_of(request, "agent_id"), body))


@post("/v1/agents/{agent_id:str}/archive", status_code=200)
async def archive_agent(request: AnyRequest) -> Answer:
    """Archive an agent."""
    caller_of(request, Kind.API)
    return answer(await services_of(request).catalog.archive("agent", name_of(request, "agent_id")))


@get("/v1/agents/{agent_id:str}/versions")
async def list_agent_versions(request: AnyRequest) -> Answer:
    """List the versions of an agent."""
    caller_of(request, Kind.API)
    wanted = page(query_of(request), limit=20, most=100, order="desc")
    catalog = services_of(request).catalog
    return answer(await catalog.agent_versions(name_of(request, "agent_id"), wanted))


@post("/v1/environments", status_code=200)
async def create_environment(request: AnyRequest) -> Answer:
    """Create an environment; its key comes with the process's bootstrap."""
    caller_of(request, Kind.API)
    body = await body_of(request, EnvironmentCreate)
    return answer(await services_of(request).catalog.create_environment(body))


@get("/v1/environments")
async def list_environments(request: AnyRequest) -> Answer:
    """List environments, newest first."""
    caller_of(request, Kind.API)
    query = query_of(request)
    wanted = page(query, limit=20, most=100, order="desc")
    return answer(await services_of(request).catalog.list("environment", query, wanted))


@get("/v1/environments/{environment_id:str}")
async def get_environment(request: AnyRequest) -> Answer:
    """Return an environment."""
    caller_of(request, Kind.API)
    catalog = services_of(request).catalog
    return answer(await catalog.environment(name_of(request, "environment_id")))


@post("/v1/environments/{environment_id:str}", status_code=200)
async def update_environment(request: AnyRequest) -> Answer:
    """Change an environment."""
    caller_of(request, Kind.API)
    body = await body_of(request, EnvironmentUpdate)
    catalog = services_of(request).catalog
    return answer(await catalog.update_environment(name_of(request, "environment_id"), body))


@post("/v1/environments/{environment_id:str}/archive", status_code=200)
async def archive_environment(request: AnyRequest) -> Answer:
    """Archive an environment."""
    caller_of(request, Kind.API)
    catalog = services_of(request).catalog
    return answer(await catalog.archive("environment", name_of(request, "environment_id")))


@delete("/v1/environments/{environment_id:str}", status_code=200)
async def delete_environment(request: AnyRequest) -> Answer:
    """Remove an environment that has no sessions."""
    caller_of(request, Kind.API)
    environment_id = name_of(request, "environment_id")
    services = services_of(request)
    await services.catalog.delete_environment(environment_id)
    services.keyring.forget(environment_id)
    return answer({"id": environment_id, "type": "environment_deleted"})


ROUTES = [
    create_agent,
    list_agents,
    get_agent,
    update_agent,
    archive_agent,
    list_agent_versions,
    create_environment,
    list_environments,
    get_environment,
    update_environment,
    archive_environment,
    delete_environment,
]

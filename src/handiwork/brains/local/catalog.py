"""Agents with their versions, and environments, as they are kept."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, delete, insert, select
from sqlalchemy.exc import IntegrityError

from handiwork.brains.local import documents
from handiwork.brains.local.clock import Clock, NewId
from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import WireError, invalid
from handiwork.brains.local.models import Model, ModelRefusedError
from handiwork.brains.local.paging import Page, Query
from handiwork.brains.local.queue import timestamp
from handiwork.brains.local.shapes import (
    AgentCreate,
    AgentReference,
    AgentUpdate,
    AgentWithOverrides,
    EnvironmentCreate,
    EnvironmentUpdate,
    merged,
    model_as_kept,
    tools_as_kept,
)
from handiwork.brains.local.tables import AGENT_VERSIONS, AGENTS, ENVIRONMENTS, KEYS, SESSIONS
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.store.database import Database

SNAPSHOT = (
    "id",
    "type",
    "name",
    "description",
    "model",
    "system",
    "tools",
    "skills",
    "mcp_servers",
    "version",
    "multiagent",
    "execution_identity",
)
"""What a session keeps of its agent."""


class Catalog:
    """What sessions are made of."""

    def __init__(
        self, database: Database, models: Mapping[str, Model], clock: Clock, new_id: NewId
    ) -> None:
        self._database = database
        self.models = models
        self._clock = clock
        self._new_id = new_id

    async def create_agent(self, body: AgentCreate) -> Document:
        """Keep a new agent; 400 when its model does not take it."""
        now = timestamp(self._clock())
        agent = {
            "id": self._new_id("agent"),
            "type": "agent",
            "version": 1,
            "name": body.name,
            "description": body.description,
            "model": model_as_kept(body.model),
            "system": body.system,
            "tools": tools_as_kept(body.tools),
            "skills": [_skill(skill) for skill in body.skills],
            "mcp_servers": [],
            "metadata": body.metadata,
            "multiagent": None,
            "execution_identity": {"type": "service_account"},
            "created_at": now,
            "updated_at": now,
            "archived_at": None,
        }
        self._check(agent)

        def change(connection: Connection) -> None:
            documents.add(connection, AGENTS, agent)
            connection.execute(insert(AGENT_VERSIONS), _version_row(agent))

        await self._database.write(change)
        return agent

    async def update_agent(self, agent_id: str, body: AgentUpdate) -> Document:
        """Keep a new version; 409 when `version` is not the newest."""
        now = timestamp(self._clock())

        def change(connection: Connection) -> Document:
            agent = _agent(connection, agent_id, None)
            if body.version not in (None, agent["version"]):
                raise WireError(409, f"agent {agent_id} is at version {agent['version']}")
            if agent["archived_at"]:
                raise invalid(f"agent {agent_id} is archived")
            after = {**agent, **_agent_changes(body, agent["metadata"])}
            after |= {"version": agent["version"] + 1, "updated_at": now}
            self._check(after)
            connection.execute(insert(AGENT_VERSIONS), _version_row(after))
            documents.put(connection, AGENTS, after)
            return after

        return await self._database.write(change)

    async def archive(self, kind: str, name: str) -> Document:
        """Mark an agent or an environment as archived; again changes nothing."""
        table, read = _KINDS[kind]
        now = timestamp(self._clock())

        def change(connection: Connection) -> Document:
            return documents.archive(connection, table, read(connection, name), now)

        return await self._database.write(change)

    async def agent(self, agent_id: str, version: int | None = None) -> Document:
        """Return an agent, the newest version or the named one; 404."""
        return await self._database.read(lambda connection: _agent(connection, agent_id, version))

    async def agent_versions(self, agent_id: str, page: Page) -> Document:
        """List the versions of an agent."""
        column = AGENT_VERSIONS.c.version
        await self.agent(agent_id)
        query = (
            select(column, AGENT_VERSIONS.c.body)
            .where(AGENT_VERSIONS.c.id == agent_id, *page.condition(column))
            .order_by(page.ordered(column))
            .limit(page.limit + 1)
        )
        return await self._list(query, page)

    async def environment(self, environment_id: str) -> Document:
        """Return an environment; 404."""
        return await self._database.read(
            lambda connection: _environment(connection, environment_id)
        )

    async def create_environment(self, body: EnvironmentCreate) -> Document:
        """Keep a new environment; 409 when its name is taken."""
        now = timestamp(self._clock())
        environment = environment_as_kept(self._new_id("env"), body.name, now)
        environment |= {
            "description": body.description,
            "metadata": body.metadata,
            "scope": body.scope or "organization",
        }
        await self._named(body.name, lambda connection: add_environment(connection, environment))
        return environment

    async def update_environment(self, environment_id: str, body: EnvironmentUpdate) -> Document:
        """Change what is given; 409 when the new name is taken."""
        now = timestamp(self._clock())
        # Of an environment, unlike of anything else, an empty value deletes its key too.
        cleared = {key: value or None for key, value in body.metadata.items()}

        def change(connection: Connection) -> Document:
            environment = _environment(connection, environment_id)
            if environment["archived_at"]:
                details = {"error_code": "environment_archived"}
                raise WireError(400, f"environment {environment_id} is archived", details)
            environment |= {
                "name": body.name or environment["name"],
                "metadata": merged(environment["metadata"], cleared),
                "scope": body.scope or environment["scope"],
                "updated_at": now,
            }
            if body.description is not msgspec.UNSET:
                environment["description"] = body.description
            documents.put(connection, ENVIRONMENTS, environment, name=environment["name"])
            return environment

        changed: Document = await self._named(body.name or "", change)
        return changed

    async def delete_environment(self, environment_id: str) -> None:
        """Remove an environment; 409 while it has sessions."""

        def change(connection: Connection) -> None:
            _environment(connection, environment_id)
            used = connection.execute(
                select(SESSIONS.c.id).where(SESSIONS.c.environment_id == environment_id).limit(1)
            ).first()
            if used is not None:
                raise WireError(409, f"environment {environment_id} has sessions: archive it")
            connection.execute(delete(KEYS).where(KEYS.c.environment_id == environment_id))
            connection.execute(delete(ENVIRONMENTS).where(ENVIRONMENTS.c.id == environment_id))

        await self._database.write(change)

    async def list(self, kind: str, query: Query, page: Page) -> Document:
        """List agents or environments, newest first."""
        table, _ = _KINDS[kind]
        return await documents.listed(self._database, table, query, page)

    async def snapshot(self, reference: str | AgentReference | AgentWithOverrides) -> Document:
        """Return the agent of a new session: pinned, with the session's overrides; 404 or 400."""
        if isinstance(reference, str):
            reference = AgentReference(id=reference)
        agent = await self.agent(reference.id, reference.version)
        if agent["archived_at"]:
            raise invalid(f"agent {reference.id} is archived")
        snapshot = {key: agent[key] for key in SNAPSHOT}
        if isinstance(reference, AgentWithOverrides):
            snapshot |= _overrides(reference)
            self._check(snapshot)
        return snapshot

    def _check(self, agent: Mapping[str, Any]) -> None:
        name = agent["model"]["id"]
        model = self.models.get(name)
        if model is None:
            served = ", ".join(repr(each) for each in self.models)
            raise invalid(f"model: this server serves {served} only, not {name!r}")
        try:
            model.check(agent["system"] or "")
        except ModelRefusedError as refused:
            raise invalid(str(refused)) from None

    async def _list(self, query: Any, page: Page) -> Document:
        def rows(connection: Connection) -> list[tuple[str | int, Document]]:
            return [(row[0], msgspec.json.decode(row[1])) for row in connection.execute(query)]

        return page.answer(await self._database.read(rows))

    async def _named(self, name: str, change: Callable[[Connection], Any]) -> Any:
        try:
            return await self._database.write(change)
        except IntegrityError:
            raise WireError(409, f"an environment with the name {name!r} exists") from None


def environment_as_kept(environment_id: str, name: str, now: str) -> Document:
    """Return a new environment."""
    return {
        "id": environment_id,
        "type": "environment",
        "name": name,
        "config": {"type": "self_hosted"},
        "description": None,
        "metadata": {},
        "scope": "organization",
        "created_at": now,
        "updated_at": now,
        "archived_at": None,
    }


def add_environment(connection: Connection, environment: Document) -> None:
    """Insert an environment; IntegrityError when its name is taken."""
    documents.add(connection, ENVIRONMENTS, environment, name=environment["name"])


def ensure_environments(
    connection: Connection, wanted: Iterable[tuple[str, str]], clock: Clock
) -> None:
    """Create those of the environments, by id and name, that are missing."""
    for environment_id, name in wanted:
        known = select(ENVIRONMENTS.c.id).where(ENVIRONMENTS.c.id == environment_id)
        if connection.execute(known).first() is None:
            now = timestamp(clock())
            add_environment(connection, environment_as_kept(environment_id, name, now))


def _agent(connection: Connection, agent_id: str, version: int | None = None) -> Document:
    if version is None:
        return documents.read(connection, AGENTS, "agent", agent_id)
    query = select(AGENT_VERSIONS.c.body).where(
        AGENT_VERSIONS.c.id == agent_id, AGENT_VERSIONS.c.version == version
    )
    return documents.decoded(connection.execute(query).first(), "agent", agent_id)


def _environment(connection: Connection, environment_id: str) -> Document:
    return documents.read(connection, ENVIRONMENTS, "environment", environment_id)


_KINDS: dict[str, tuple[Table, Callable[[Connection, str], Document]]] = {
    "agent": (AGENTS, _agent),
    "environment": (ENVIRONMENTS, _environment),
}


def _version_row(agent: Document) -> Document:
    return {
        "id": agent["id"],
        "version": agent["version"],
        "tenant_id": DEFAULT_TENANT,
        "body": msgspec.json.encode(agent),
    }


def _agent_changes(body: AgentUpdate, metadata: dict[str, str]) -> Document:
    changes: Document = {"metadata": merged(metadata, body.metadata)}
    for field in ("name", "description", "system"):
        value = getattr(body, field)
        if value is not msgspec.UNSET:
            changes[field] = value
    if not isinstance(body.model, msgspec.UnsetType):
        changes["model"] = model_as_kept(body.model)
    if not isinstance(body.tools, msgspec.UnsetType):
        changes["tools"] = tools_as_kept(body.tools)
    if not isinstance(body.skills, msgspec.UnsetType):
        changes["skills"] = [_skill(skill) for skill in body.skills or ()]
    return changes


def _overrides(reference: AgentWithOverrides) -> Document:
    changes: Document = {}
    if reference.model is not None:
        changes["model"] = model_as_kept(reference.model)
    if reference.system is not msgspec.UNSET:
        changes["system"] = reference.system
    if reference.tools is not None:
        changes["tools"] = tools_as_kept(reference.tools)
    if reference.skills is not None:
        changes["skills"] = [_skill(skill) for skill in reference.skills]
    return changes


def _skill(skill: Any) -> Document:
    return {"type": skill.type, "skill_id": skill.skill_id, "version": skill.version or "latest"}

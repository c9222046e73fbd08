"""Agents with their versions, and environments, as they are kept."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Table, and_, insert, select, update
from sqlalchemy.exc import IntegrityError

from handiwork.brains.local.clock import Clock, NewId
from handiwork.brains.local.errors import WireError, invalid, missing
from handiwork.brains.local.models import Model, ModelRefusedError
from handiwork.brains.local.paging import Page, Query, flag, moments
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
from handiwork.brains.local.tables import AGENT_VERSIONS, AGENTS, ENVIRONMENTS, SESSIONS
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.store.database import Database

Document = dict[str, Any]

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
        self._models = models
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
        await self._database.write(
            lambda connection: (
                connection.execute(insert(AGENTS), _row(agent)),
                connection.execute(insert(AGENT_VERSIONS), _version_row(agent)),
            )
        )
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
            _put(connection, AGENTS, after)
            return after

        return await self._database.write(change)

    async def archive(self, kind: str, name: str) -> Document:
        """Mark an agent or an environment as archived; again changes nothing."""
        table, read = _KINDS[kind]
        now = timestamp(self._clock())

        def change(connection: Connection) -> Document:
            document = read(connection, name)
            if document["archived_at"] is None:
                document |= {"archived_at": now, "updated_at": now}
                _put(connection, table, document)
            return document

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

        def change(connection: Connection) -> Document:
            environment = _environment(connection, environment_id)
            environment |= {
                "name": body.name or environment["name"],
                "metadata": merged(environment["metadata"], body.metadata),
                "scope": body.scope or environment["scope"],
                "updated_at": now,
            }
            if body.description is not msgspec.UNSET:
                environment["description"] = body.description
            _put(connection, ENVIRONMENTS, environment, name=environment["name"])
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
            connection.execute(ENVIRONMENTS.delete().where(ENVIRONMENTS.c.id == environment_id))

        await self._database.write(change)

    async def list(self, kind: str, query: Query, page: Page) -> Document:
        """List agents or environments, newest first."""
        table, _ = _KINDS[kind]
        column = table.c.created_at
        conditions = [*page.condition(column), *moments(query, "created_at", column)]
        if not flag(query, "include_archived"):
            conditions.append(table.c.archived_at.is_(None))
        chosen = (
            select(column, table.c.body)
            .where(and_(True, *conditions))
            .order_by(page.ordered(column))
            .limit(page.limit + 1)
        )
        return await self._list(chosen, page)

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
        model = self._models.get(name)
        if model is None:
            served = ", ".join(repr(each) for each in self._models)
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
    row = {**_row(environment), "name": environment["name"]}
    connection.execute(insert(ENVIRONMENTS), row)


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
    query = select(AGENTS.c.body).where(AGENTS.c.id == agent_id)
    if version is not None:
        query = select(AGENT_VERSIONS.c.body).where(
            AGENT_VERSIONS.c.id == agent_id, AGENT_VERSIONS.c.version == version
        )
    return _decoded(connection.execute(query).first(), "agent", agent_id)


def _environment(connection: Connection, environment_id: str) -> Document:
    query = select(ENVIRONMENTS.c.body).where(ENVIRONMENTS.c.id == environment_id)
    return _decoded(connection.execute(query).first(), "environment", environment_id)


_KINDS: dict[str, tuple[Table, Callable[[Connection, str], Document]]] = {
    "agent": (AGENTS, _agent),
    "environment": (ENVIRONMENTS, _environment),
}


def _decoded(row: Any, kind: str, name: str) -> Document:
    if row is None:
        raise missing(kind, name)
    document: Document = msgspec.json.decode(row.body)
    return document


def _row(document: Document) -> Document:
    return {
        "id": document["id"],
        "tenant_id": DEFAULT_TENANT,
        "created_at": document["created_at"],
        "archived_at": document["archived_at"],
        "body": msgspec.json.encode(document),
    }


def _version_row(agent: Document) -> Document:
    return {
        "id": agent["id"],
        "version": agent["version"],
        "tenant_id": DEFAULT_TENANT,
        "body": msgspec.json.encode(agent),
    }


def _put(connection: Connection, table: Table, document: Document, **more: Any) -> None:
    row = _row(document)
    connection.execute(
        update(table)
        .where(table.c.id == document["id"])
        .values(archived_at=row["archived_at"], body=row["body"], **more)
    )


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

"""What operators write, in the database: settings of agents, policies, sealed secrets."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from handiwork.model.agent import AgentSettings
from handiwork.model.errors import ConflictError, NotFoundError
from handiwork.model.policy import Policy, stored_policy
from handiwork.model.secret import SealedSecret, SecretInfo
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import agents, microseconds, moment, policies, secrets


class SqliteAgents:
    """Implements `store.protocol.Agents`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def put(self, settings: AgentSettings) -> None:
        """Insert or replace."""
        rows.check_tenant(self._tenant, settings.tenant)
        key = self._key(settings.environment_id, settings.agent_id)
        values = {"body": rows.encoded(settings)}
        await self._database.write(lambda to: rows.upsert(to, agents, key, values))

    async def remove(self, environment_id: str, agent_id: str) -> None:
        """Forget one; it is fine when there is none."""
        gone = delete(agents).where(
            agents.c.tenant == self._tenant,
            agents.c.environment_id == environment_id,
            agents.c.agent_id == agent_id,
        )
        await self._database.write(lambda to: to.execute(gone))

    async def get(self, environment_id: str, agent_id: str) -> AgentSettings | None:
        """Return None when nothing was decided."""
        key = self._key(environment_id, agent_id)
        return await self._database.read(lambda at: rows.body(at, agents, key, AgentSettings))

    async def list(self) -> list[AgentSettings]:
        """Return all, by agent id, then environment."""
        query = select(agents.c.body).where(agents.c.tenant == self._tenant)
        query = query.order_by(agents.c.agent_id, agents.c.environment_id)
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, AgentSettings) for body in bodies]

    def _key(self, environment_id: str, agent_id: str) -> dict[str, str]:
        return {"tenant": self._tenant, "environment_id": environment_id, "agent_id": agent_id}


class SqlitePolicies:
    """Implements `store.protocol.Policies`: one live version of each name, all of them kept."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def put(self, policy: Policy, at: datetime) -> int:
        """Write the next version; numbers go on after a deletion."""
        values = {
            "tenant": self._tenant,
            "name": policy.name,
            "live": True,
            "at_us": microseconds(at),
            "body": rows.encoded(policy),
        }

        def write(to: Connection) -> int:
            last = select(func.max(policies.c.version)).where(*self._named(policy.name))
            version = (to.execute(last).scalar() or 0) + 1
            self._withdraw(to, policy.name)
            to.execute(insert(policies), values | {"version": version})
            return version

        return await self._database.write(write)

    async def get(self, name: str) -> Policy:
        """Return the newest version, or raise NotFoundError."""
        query = select(policies.c.body).where(*self._named(name), policies.c.live)
        body = await self._database.read(lambda at: at.execute(query).scalar())
        if body is None:
            raise NotFoundError(f"there is no policy {name!r}")
        return stored_policy(body)

    async def list(self) -> list[tuple[Policy, int, datetime]]:
        """Return the newest version of each, by name."""
        query = (
            select(policies.c.body, policies.c.version, policies.c.at_us)
            .where(policies.c.tenant == self._tenant, policies.c.live)
            .order_by(policies.c.name)
        )
        found = await self._database.read(lambda at: at.execute(query).all())
        return [(stored_policy(body), version, moment(us)) for body, version, us in found]

    async def delete(self, name: str) -> None:
        """Withdraw it, or raise NotFoundError."""

        def withdraw(to: Connection) -> None:
            if not self._withdraw(to, name):
                raise NotFoundError(f"there is no policy {name!r}")

        await self._database.write(withdraw)

    def _named(self, name: str) -> tuple[Any, Any]:
        return policies.c.tenant == self._tenant, policies.c.name == name

    def _withdraw(self, to: Connection, name: str) -> int:
        change = update(policies).where(*self._named(name), policies.c.live).values(live=False)
        return to.execute(change).rowcount


class SqliteSecrets:
    """Implements `store.protocol.Secrets`: an old version is gone when a new one is written."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def put(self, secret: SealedSecret, at: datetime) -> None:
        """Write the next version, or raise ConflictError."""
        rows.check_tenant(self._tenant, secret.tenant)
        us = microseconds(at)
        key = {"tenant": self._tenant, "name": secret.name}
        values = {"version": secret.version, "updated_us": us, "body": rows.encoded(secret)}

        def write(to: Connection) -> None:
            query = select(secrets.c.version, secrets.c.created_us).where(*self._named(secret.name))
            last, created_us = to.execute(query).one_or_none() or (0, us)
            if secret.version != last + 1:
                raise ConflictError(f"the secret {secret.name!r} was written meanwhile; try again")
            rows.upsert(to, secrets, key, values | {"created_us": created_us})

        await self._database.write(write)

    async def sealed(self, names: Sequence[str]) -> list[SealedSecret]:
        """Return those that exist, by name."""
        query = (
            select(secrets.c.body)
            .where(secrets.c.tenant == self._tenant, secrets.c.name.in_(list(names)))
            .order_by(secrets.c.name)
        )
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, SealedSecret) for body in bodies]

    async def list(self) -> list[SecretInfo]:
        """Return what may be told, by name."""
        query = select(secrets).where(secrets.c.tenant == self._tenant).order_by(secrets.c.name)
        found = await self._database.read(lambda at: at.execute(query).all())
        return [
            SecretInfo(
                name=row.name,
                version=row.version,
                hosts=rows.decoded(row.body, SealedSecret).hosts,
                created_at=moment(row.created_us),
                updated_at=moment(row.updated_us),
            )
            for row in found
        ]

    async def delete(self, name: str) -> None:
        """Forget it, or raise NotFoundError."""

        def forget(to: Connection) -> None:
            if to.execute(delete(secrets).where(*self._named(name))).rowcount == 0:
                raise NotFoundError(f"there is no secret {name!r}")

        await self._database.write(forget)

    def _named(self, name: str) -> tuple[Any, Any]:
        return secrets.c.tenant == self._tenant, secrets.c.name == name

"""Records of sandboxes in the database."""

from collections.abc import Mapping

from sqlalchemy import func, select

from handiwork.model.errors import NotFoundError
from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import microseconds, sandboxes


class SqliteSandboxes:
    """Implements `store.protocol.Sandboxes`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def save(self, record: SandboxRecord) -> None:
        """Insert or replace."""
        rows.check_tenant(self._tenant, record.tenant)
        key = {"tenant": self._tenant, "id": record.id}
        values = {
            "state": record.state.value,
            "created_us": microseconds(record.created_at),
            "body": rows.encoded(record),
        }
        await self._database.write(lambda to: rows.upsert(to, sandboxes, key, values))

    async def get(self, sandbox_id: str) -> SandboxRecord:
        """Return it, or raise NotFoundError."""
        key = {"tenant": self._tenant, "id": sandbox_id}
        found = await self._database.read(lambda at: rows.body(at, sandboxes, key, SandboxRecord))
        if found is None:
            raise NotFoundError(f"there is no sandbox {sandbox_id!r}")
        return found

    async def list(self, *, include_gone: bool = False, limit: int = 1000) -> list[SandboxRecord]:
        """Return the newest first."""
        query = select(sandboxes.c.body).where(sandboxes.c.tenant == self._tenant)
        if not include_gone:
            query = query.where(sandboxes.c.state != SandboxState.GONE.value)
        query = query.order_by(sandboxes.c.created_us.desc(), sandboxes.c.id.desc()).limit(limit)
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, SandboxRecord) for body in bodies]

    async def counts(self) -> Mapping[tuple[str, str], int]:
        """Count those that are not gone, by state and tier."""
        tier = func.json_extract(sandboxes.c.body, "$.tier")
        query = (
            select(sandboxes.c.state, tier, func.count())
            .where(sandboxes.c.tenant == self._tenant, sandboxes.c.state != SandboxState.GONE.value)
            .group_by(sandboxes.c.state, tier)
        )
        found = await self._database.read(lambda at: at.execute(query).all())
        return {(state, str(named)): count for state, named, count in found}

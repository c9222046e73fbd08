"""Runs in the database."""

from sqlalchemy import select

from handiwork.model.errors import NotFoundError
from handiwork.model.run import Run
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import microseconds, runs


class SqliteRuns:
    """Implements `store.protocol.Runs`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def save(self, run: Run) -> None:
        """Insert or replace."""
        rows.check_tenant(self._tenant, run.tenant)
        key = {"tenant": self._tenant, "id": run.id}
        values = {"created_us": microseconds(run.created_at), "body": rows.encoded(run)}
        await self._database.write(lambda to: rows.upsert(to, runs, key, values))

    async def get(self, run_id: str) -> Run:
        """Return it, or raise NotFoundError."""
        key = {"tenant": self._tenant, "id": run_id}
        found = await self._database.read(lambda at: rows.body(at, runs, key, Run))
        if found is None:
            raise NotFoundError(f"there is no run {run_id[:80]!r}")
        return found

    async def list(self, *, limit: int = 100) -> list[Run]:
        """Return the newest first."""
        query = (
            select(runs.c.body)
            .where(runs.c.tenant == self._tenant)
            .order_by(runs.c.created_us.desc(), runs.c.id.desc())
            .limit(limit)
        )
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, Run) for body in bodies]

"""Processes that outlive their call, in the database."""

from sqlalchemy import delete, select

from handiwork.model.errors import NotFoundError
from handiwork.model.process import ProcessRecord, ProcessState
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import microseconds, processes


class SqliteProcesses:
    """Implements `store.protocol.Processes`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def save(self, record: ProcessRecord) -> None:
        """Insert or replace."""
        rows.check_tenant(self._tenant, record.tenant)
        key = {"tenant": self._tenant, "id": record.id}
        values = {
            "sandbox_id": record.sandbox_id,
            "state": record.state.value,
            "started_us": microseconds(record.started_at),
            "body": rows.encoded(record),
        }
        await self._database.write(lambda to: rows.upsert(to, processes, key, values))

    async def get(self, process_id: str) -> ProcessRecord:
        """Return it, or raise NotFoundError."""
        key = {"tenant": self._tenant, "id": process_id}
        found = await self._database.read(lambda at: rows.body(at, processes, key, ProcessRecord))
        if found is None:
            raise NotFoundError(f"there is no process {process_id[:80]!r}")
        return found

    async def running(self) -> list[ProcessRecord]:
        """Return all that are kept as running, by id."""
        query = (
            select(processes.c.body)
            .where(
                processes.c.tenant == self._tenant,
                processes.c.state == ProcessState.RUNNING.value,
            )
            .order_by(processes.c.id)
        )
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, ProcessRecord) for body in bodies]

    async def list(self, sandbox_id: str, *, limit: int = 100) -> list[ProcessRecord]:
        """Return those of a sandbox, newest first."""
        query = (
            select(processes.c.body)
            .where(processes.c.tenant == self._tenant, processes.c.sandbox_id == sandbox_id)
            .order_by(processes.c.started_us.desc(), processes.c.id.desc())
            .limit(limit)
        )
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, ProcessRecord) for body in bodies]

    async def delete(self, process_id: str) -> None:
        """Forget one. No-op when there is none."""
        query = delete(processes).where(
            processes.c.tenant == self._tenant, processes.c.id == process_id
        )
        await self._database.write(lambda to: to.execute(query))

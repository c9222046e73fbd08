"""The index of audit segments in the database."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from handiwork.model.audit import AuditRecord
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import audit_records, audit_segments, microseconds


class SqliteAudit:
    """Implements `store.protocol.Audit`.

    A segment holds the records of every tenant; each is kept under its own, and queries see one.
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def append(self, records: Sequence[AuditRecord], *, segment: str, position: int) -> None:
        """Add records, once each, and remember how far the segment is indexed."""
        values = [_row(record) for record in records]
        key = {"tenant": self._tenant, "segment": segment}

        def write(to: Connection) -> None:
            if values:
                to.execute(insert(audit_records).prefix_with("OR IGNORE"), values)
            rows.upsert(to, audit_segments, key, {"position": position})

        await self._database.write(write)

    async def positions(self) -> dict[str, int]:
        """Return bytes indexed of each segment."""
        query = select(audit_segments.c.segment, audit_segments.c.position).where(
            audit_segments.c.tenant == self._tenant
        )
        found = await self._database.read(lambda at: at.execute(query).all())
        return {row.segment: row.position for row in found}

    async def query(
        self,
        *,
        session_id: str | None = None,
        sandbox_id: str | None = None,
        allowed: bool | None = None,
        limit: int = 100,
    ) -> list[AuditRecord]:
        """Return the newest first."""
        query = select(audit_records.c.body).where(audit_records.c.tenant == self._tenant)
        if session_id is not None:
            query = query.where(audit_records.c.session_id == session_id)
        if sandbox_id is not None:
            query = query.where(audit_records.c.sandbox_id == sandbox_id)
        if allowed is not None:
            query = query.where(audit_records.c.allowed == allowed)
        query = query.order_by(audit_records.c.at_us.desc(), audit_records.c.id.desc())
        bodies = await self._database.read(
            lambda at: at.execute(query.limit(limit)).scalars().all()
        )
        return [rows.decoded(body, AuditRecord) for body in bodies]


def _row(record: AuditRecord) -> dict[str, Any]:
    return {
        "tenant": record.tenant,
        "id": record.id,
        "at_us": microseconds(record.at),
        "session_id": record.session_id,
        "sandbox_id": record.sandbox_id,
        "allowed": record.allowed,
        "body": rows.encoded(record),
    }

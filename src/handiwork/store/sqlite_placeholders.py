"""Placeholders of sessions in the database."""

from sqlalchemy import delete, select

from handiwork.model.placeholder import KeptPlaceholder
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import placeholders


class SqlitePlaceholders:
    """Implements `store.protocol.Placeholders`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def put(self, session_id: str, kept: KeptPlaceholder) -> None:
        """Insert, or replace that of the same variable."""
        key = {"tenant": self._tenant, "session_id": session_id, "name": kept.variable}
        values = {"body": rows.encoded(kept)}
        await self._database.write(lambda to: rows.upsert(to, placeholders, key, values))

    async def list(self, session_id: str) -> list[KeptPlaceholder]:
        """Return those of a session, by variable."""
        query = (
            select(placeholders.c.body)
            .where(placeholders.c.tenant == self._tenant, placeholders.c.session_id == session_id)
            .order_by(placeholders.c.name)
        )
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, KeptPlaceholder) for body in bodies]

    async def delete(self, session_id: str) -> None:
        """Forget those of a session."""
        query = delete(placeholders).where(
            placeholders.c.tenant == self._tenant, placeholders.c.session_id == session_id
        )
        await self._database.write(lambda to: to.execute(query))

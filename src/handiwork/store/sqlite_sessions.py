"""Sessions and their events in the database."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from handiwork.model.errors import NotFoundError
from handiwork.model.session import Session, SessionEvent
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import microseconds, moment, session_events, sessions


class SqliteSessions:
    """Implements `store.protocol.Sessions`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def save(self, session: Session) -> None:
        """Insert or replace."""
        rows.check_tenant(self._tenant, session.tenant)
        key = {"tenant": self._tenant, "id": session.id}
        values = {
            "state": session.state.value,
            "created_us": microseconds(session.created_at),
            "body": rows.encoded(session),
        }
        await self._database.write(lambda to: rows.upsert(to, sessions, key, values))

    async def get(self, session_id: str) -> Session:
        """Return it, or raise NotFoundError."""
        key = {"tenant": self._tenant, "id": session_id}
        found = await self._database.read(lambda at: rows.body(at, sessions, key, Session))
        if found is None:
            raise NotFoundError(f"there is no session {session_id!r}")
        return found

    async def list(self, *, state: str | None = None, limit: int = 100) -> list[Session]:
        """Return the newest first."""
        query = select(sessions.c.body).where(sessions.c.tenant == self._tenant)
        if state is not None:
            query = query.where(sessions.c.state == state)
        query = query.order_by(sessions.c.created_us.desc(), sessions.c.id.desc()).limit(limit)
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, Session) for body in bodies]

    async def counts(self) -> Mapping[str, int]:
        """Count the sessions of each state."""
        query = (
            select(sessions.c.state, func.count())
            .where(sessions.c.tenant == self._tenant)
            .group_by(sessions.c.state)
        )
        found = await self._database.read(lambda at: at.execute(query).all())
        return {state: count for state, count in found}  # noqa: C416  rows are no pairs to a type checker

    async def record(
        self, session_id: str, kind: str, data: Mapping[str, Any], at: datetime
    ) -> SessionEvent:
        """Append an event after the session's last."""
        values = {
            "tenant": self._tenant,
            "session_id": session_id,
            "at_us": microseconds(at),
            "kind": kind,
            "data": rows.encoded(data),
        }

        def append(to: Connection) -> int:
            last = select(func.max(session_events.c.sequence)).where(
                session_events.c.tenant == self._tenant,
                session_events.c.session_id == session_id,
            )
            sequence = (to.execute(last).scalar() or 0) + 1
            to.execute(insert(session_events), values | {"sequence": sequence})
            return sequence

        sequence = await self._database.write(append)
        return SessionEvent(
            sequence=sequence, session_id=session_id, at=at, kind=kind, data=_data(values["data"])
        )

    async def events(
        self, session_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[SessionEvent]:
        """Return events with a greater sequence, in order."""
        query = (
            select(session_events)
            .where(
                session_events.c.tenant == self._tenant,
                session_events.c.session_id == session_id,
                session_events.c.sequence > after,
            )
            .order_by(session_events.c.sequence)
            .limit(limit)
        )
        found = await self._database.read(lambda at: at.execute(query).all())
        return [_event(row) for row in found]


def _event(row: Row[Any]) -> SessionEvent:
    return SessionEvent(
        sequence=row.sequence,
        session_id=row.session_id,
        at=moment(row.at_us),
        kind=row.kind,
        data=_data(row.data),
    )


def _data(text: Any) -> dict[str, Any]:
    return rows.decoded(text, dict[str, Any])

"""The local brain's tables and the statements that are run often, built once.

Documents are JSON; columns beside them are what is searched or changed alone. Moments are RFC 3339
texts of fixed width, so they sort.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    bindparam,
    delete,
    insert,
    text,
    update,
)
from sqlalchemy.dialects.sqlite import insert as upsert

METADATA = MetaData()


def _tenant() -> Column[str]:
    return Column("tenant_id", Text, nullable=False)


KEYS = Table(
    "keys",
    METADATA,
    Column("digest", Text, primary_key=True),
    _tenant(),
    Column("kind", Text, nullable=False),
    Column("environment_id", Text),
)

ENVIRONMENTS = Table(
    "environments",
    METADATA,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("name", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("archived_at", Text),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("tenant_id", "name"),
)

AGENTS = Table(
    "agents",
    METADATA,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("created_at", Text, nullable=False),
    Column("archived_at", Text),
    Column("body", LargeBinary, nullable=False),
)

AGENT_VERSIONS = Table(
    "agent_versions",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    _tenant(),
    Column("body", LargeBinary, nullable=False),
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("environment_id", Text, nullable=False),
    Column("agent_id", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("archived_at", Text),
    Column("body", LargeBinary, nullable=False),
    Index("sessions_by_time", "tenant_id", "created_at"),
)

PROGRESS = Table(
    "progress",
    METADATA,
    Column("session_id", Text, primary_key=True),
    _tenant(),
    Column("status", Text, nullable=False),
    Column("turn_open", Boolean, nullable=False),
    Column("state", LargeBinary, nullable=False),
)
"""What every event changes of a session, apart from its large body so that a write stays small."""

EVENTS = Table(
    "events",
    METADATA,
    Column("session_id", Text, primary_key=True),
    Column("position", Integer, primary_key=True),
    _tenant(),
    Column("id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("call_id", Text),
    Column("created_at", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("events_by_call", "session_id", "call_id", sqlite_where=text("call_id IS NOT NULL")),
    sqlite_with_rowid=False,
)

WORK = Table(
    "work",
    METADATA,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("environment_id", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("work_by_time", "environment_id", "created_at"),
)

ADD_EVENTS = insert(EVENTS)
DROP_EVENT = delete(EVENTS).where(
    EVENTS.c.session_id == bindparam("in_session"), EVENTS.c.position == bindparam("at")
)
KEEP_PROGRESS = update(PROGRESS).where(PROGRESS.c.session_id == bindparam("session"))
KEEP_BODY = update(SESSIONS).where(SESSIONS.c.id == bindparam("session"))
"""The columns of both are those that the parameters name."""
_work = upsert(WORK)
KEEP_WORK = _work.on_conflict_do_update(
    index_elements=[WORK.c.id], set_={"state": _work.excluded.state, "body": _work.excluded.body}
)

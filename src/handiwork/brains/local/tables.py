"""The local brain's tables and the statements that are run often, built once.

Documents are JSON; columns beside them are what is searched or changed alone. Moments are RFC 3339
texts of fixed width, so they sort.
"""

from typing import Any

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
    Column("id", Text),
    Column("created_at", Text),
)
"""`id` and `created_at` stand for keys that this server made; the others came with a bootstrap."""

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


def _documents(name: str, *more: Column[Any] | Index | UniqueConstraint) -> Table:
    """Return a table of JSON documents that are created, changed and listed by time."""
    return Table(
        name,
        METADATA,
        Column("id", Text, primary_key=True),
        _tenant(),
        Column("created_at", Text, nullable=False),
        Column("archived_at", Text),
        Column("body", LargeBinary, nullable=False),
        *more,
    )


MEMORY_STORES = _documents("memory_stores")

MEMORIES = Table(
    "memories",
    METADATA,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("store_id", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("version_id", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("content", Text, nullable=False),
    UniqueConstraint("store_id", "path"),
    Index("memories_by_version", "version_id"),
)

MEMORY_VERSIONS = Table(
    "memory_versions",
    METADATA,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("store_id", Text, nullable=False),
    Column("memory_id", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("operation", Text, nullable=False),
    Column("api_key_id", Text),
    Column("author_session_id", Text),
    Column("body", LargeBinary, nullable=False),
    Column("content", Text),
    Index("memory_versions_by_time", "store_id", "created_at"),
)

ATTACHED_STORES = Table(
    "attached_stores",
    METADATA,
    Column("session_id", Text, primary_key=True),
    Column("store_id", Text, primary_key=True),
    _tenant(),
)
"""Which sessions name which memory stores among their resources, for the list's filter."""

SKILLS = _documents("skills")

SKILL_VERSIONS = _documents(
    "skill_versions",
    Column("skill_id", Text, nullable=False),
    Column("archive", LargeBinary, nullable=False),
    Index("skill_versions_by_time", "skill_id", "created_at"),
)

VAULTS = _documents("vaults")

CREDENTIALS = _documents(
    "credentials",
    Column("vault_id", Text, nullable=False),
    Column("sealed", LargeBinary),
    Index("credentials_by_time", "vault_id", "created_at"),
)
"""`sealed` is the value, which this process cannot open; archiving forgets it."""

WEBHOOK_ENDPOINTS = _documents("webhook_endpoints", Column("signing_key", Text, nullable=False))

WEBHOOK_DELIVERIES = Table(
    "webhook_deliveries",
    METADATA,
    Column("id", Text, primary_key=True),
    _tenant(),
    Column("endpoint_id", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("due_at", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("webhook_deliveries_by_time", "due_at"),
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

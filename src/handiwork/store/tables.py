"""The schema of the control plane's database, the same on SQLite and Postgres.

A noun is kept as JSON of its frozen type in `body`, so that a field with a default needs no
migration; beside it stand only the columns that are keys, filters or orders. Times (`…_us`) are
microseconds since the epoch. Every table begins with the tenant.
"""

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _key(name: str) -> Column[str]:
    return Column(name, String, primary_key=True)


def _us(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


sessions = Table(
    "sessions",
    metadata,
    _key("tenant"),
    _key("id"),
    Column("state", String, nullable=False),
    _us("created_us"),
    Column("body", Text, nullable=False),
    Index("sessions_newest", "tenant", "created_us"),
)

session_events = Table(
    "session_events",
    metadata,
    _key("tenant"),
    _key("session_id"),
    Column("sequence", Integer, primary_key=True, autoincrement=False),
    _us("at_us"),
    Column("kind", String, nullable=False),
    Column("data", Text, nullable=False),
)

tool_calls = Table(
    "tool_calls",
    metadata,
    _key("tenant"),
    _key("session_id"),
    _key("tool_use_id"),
    Column("name", String, nullable=False),
    Column("custom", Boolean, nullable=False),
    Column("state", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("result", Text, nullable=True),
    _us("started_us"),
    _us("updated_us"),
    Index("tool_calls_of_session", "tenant", "session_id", "state"),
)

agents = Table(
    "agents",
    metadata,
    _key("tenant"),
    _key("environment_id"),
    _key("agent_id"),
    Column("body", Text, nullable=False),
)

policies = Table(
    "policies",
    metadata,
    _key("tenant"),
    _key("name"),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("live", Boolean, nullable=False),
    _us("at_us"),
    Column("body", Text, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    _key("tenant"),
    _key("name"),
    Column("version", Integer, nullable=False),
    _us("created_us"),
    _us("updated_us"),
    Column("body", Text, nullable=False),
)

audit_records = Table(
    "audit_records",
    metadata,
    _key("tenant"),
    _key("id"),
    _us("at_us"),
    Column("session_id", String, nullable=False),
    Column("sandbox_id", String, nullable=False),
    Column("allowed", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    Index("audit_newest", "tenant", "at_us"),
    Index("audit_of_session", "tenant", "session_id", "at_us"),
    Index("audit_of_sandbox", "tenant", "sandbox_id", "at_us"),
)

audit_segments = Table(
    "audit_segments",
    metadata,
    _key("tenant"),
    _key("segment"),
    Column("position", BigInteger, nullable=False),
)

sandboxes = Table(
    "sandboxes",
    metadata,
    _key("tenant"),
    _key("id"),
    Column("state", String, nullable=False),
    _us("created_us"),
    Column("body", Text, nullable=False),
    Index("sandboxes_newest", "tenant", "created_us"),
)

control_keys = Table(
    "control_keys", metadata, _key("tenant"), Column("wrapped", LargeBinary, nullable=False)
)

control_secrets = Table(
    "control_secrets",
    metadata,
    _key("tenant"),
    _key("name"),
    Column("sealed", LargeBinary, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    _key("tenant"),
    _key("environment_id"),
    _key("work_id"),
    Column("body", Text, nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    _key("tenant"),
    _key("id"),
    _us("received_us"),
    Column("body", Text, nullable=False),
    Index("webhooks_newest", "tenant", "received_us"),
)

models = Table(
    "models", metadata, _key("tenant"), _key("name"), Column("body", Text, nullable=False)
)

runs = Table(
    "runs",
    metadata,
    _key("tenant"),
    _key("id"),
    _us("created_us"),
    Column("body", Text, nullable=False),
    Index("runs_newest", "tenant", "created_us"),
)

processes = Table(
    "processes",
    metadata,
    _key("tenant"),
    _key("id"),
    Column("sandbox_id", String, nullable=False),
    Column("state", String, nullable=False),
    _us("started_us"),
    Column("body", Text, nullable=False),
    Index("processes_of_sandbox", "tenant", "sandbox_id", "started_us"),
)

placeholders = Table(
    "placeholders",
    metadata,
    _key("tenant"),
    _key("session_id"),
    _key("name"),
    Column("body", Text, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    _key("tenant"),
    _key("sandbox_id"),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("body", Text, nullable=False),
)

snapshot_pins = Table(
    "snapshot_pins",
    metadata,
    _key("tenant"),
    _key("sandbox_id"),
    _key("name"),
    Column("number", Integer, nullable=False),
)

snapshot_states = Table(
    "snapshot_states",
    metadata,
    _key("tenant"),
    _key("sandbox_id"),
    Column("body", Text, nullable=False),
)

notices = Table(
    "notices",
    metadata,
    _key("tenant"),
    _key("id"),
    Column("session_id", String, nullable=False),
    _us("at_us"),
    Column("body", Text, nullable=False),
    Index("notices_of_session", "tenant", "session_id", "at_us"),
)


def microseconds(at: datetime) -> int:
    """Return the time as the schema keeps it; the time must know its zone."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def moment(us: int) -> datetime:
    """Return the time that `microseconds` kept."""
    return _EPOCH + timedelta(microseconds=us)

"""Keys, environments, agents, sessions, events and work."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


def _json(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "keys",
        _key("digest"),
        _text("tenant_id"),
        _text("kind"),
        _text("environment_id", nullable=True),
    )
    op.create_table(
        "environments",
        _key("id"),
        _text("tenant_id"),
        _text("name"),
        _text("created_at"),
        _text("archived_at", nullable=True),
        _json("body"),
        sa.UniqueConstraint("tenant_id", "name"),
    )
    op.create_table(
        "agents",
        _key("id"),
        _text("tenant_id"),
        _text("created_at"),
        _text("archived_at", nullable=True),
        _json("body"),
    )
    op.create_table(
        "agent_versions",
        _key("id"),
        sa.Column("version", sa.Integer, primary_key=True),
        _text("tenant_id"),
        _json("body"),
    )
    _sessions()
    op.create_table(
        "work",
        _key("id"),
        _text("tenant_id"),
        _text("environment_id"),
        _text("state"),
        _text("created_at"),
        _json("body"),
    )
    op.create_index("work_by_time", "work", ["environment_id", "created_at"])


def _sessions() -> None:
    op.create_table(
        "sessions",
        _key("id"),
        _text("tenant_id"),
        _text("environment_id"),
        _text("agent_id"),
        _text("created_at"),
        _text("archived_at", nullable=True),
        _json("body"),
    )
    op.create_index("sessions_by_time", "sessions", ["tenant_id", "created_at"])
    op.create_table(
        "progress",
        _key("session_id"),
        _text("tenant_id"),
        _text("status"),
        sa.Column("turn_open", sa.Boolean, nullable=False),
        _json("state"),
    )
    op.create_table(
        "events",
        _key("session_id"),
        sa.Column("position", sa.Integer, primary_key=True),
        _text("tenant_id"),
        _text("id"),
        _text("type"),
        _text("call_id", nullable=True),
        _text("created_at"),
        _json("body"),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "events_by_call",
        "events",
        ["session_id", "call_id"],
        sqlite_where=sa.text("call_id IS NOT NULL"),
    )


def downgrade() -> None:
    """There is nothing before the first revision."""
    raise NotImplementedError

"""Every table of the first version."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    _sessions()
    _what_operators_write()
    _audit()
    op.create_table(
        "sandboxes",
        *_keys("tenant", "id"),
        _text("state"),
        _us("created_us"),
        _body("body"),
    )
    op.create_index("sandboxes_newest", "sandboxes", ["tenant", "created_us"])
    op.create_table("control_keys", *_keys("tenant"), _bytes("wrapped"))
    op.create_table("control_secrets", *_keys("tenant", "name"), _bytes("sealed"))


def _sessions() -> None:
    op.create_table(
        "sessions", *_keys("tenant", "id"), _text("state"), _us("created_us"), _body("body")
    )
    op.create_index("sessions_newest", "sessions", ["tenant", "created_us"])
    op.create_table(
        "session_events",
        *_keys("tenant", "session_id"),
        _number_key("sequence"),
        _us("at_us"),
        _text("kind"),
        _body("data"),
    )
    op.create_table(
        "tool_calls",
        *_keys("tenant", "tool_use_id"),
        _text("session_id"),
        _text("name"),
        _flag("custom"),
        _text("state"),
        _body("reason"),
        sa.Column("result", sa.Text, nullable=True),
        _us("started_us"),
        _us("updated_us"),
    )
    op.create_index("tool_calls_of_session", "tool_calls", ["tenant", "session_id", "state"])


def _what_operators_write() -> None:
    op.create_table("agents", *_keys("tenant", "agent_id"), _body("body"))
    op.create_table(
        "policies",
        *_keys("tenant", "name"),
        _number_key("version"),
        _flag("live"),
        _us("at_us"),
        _body("body"),
    )
    op.create_table(
        "secrets",
        *_keys("tenant", "name"),
        sa.Column("version", sa.Integer, nullable=False),
        _us("created_us"),
        _us("updated_us"),
        _body("body"),
    )


def _audit() -> None:
    op.create_table(
        "audit_records",
        *_keys("tenant", "id"),
        _us("at_us"),
        _text("session_id"),
        _text("sandbox_id"),
        _flag("allowed"),
        _body("body"),
    )
    op.create_index("audit_newest", "audit_records", ["tenant", "at_us"])
    op.create_index("audit_of_session", "audit_records", ["tenant", "session_id", "at_us"])
    op.create_index("audit_of_sandbox", "audit_records", ["tenant", "sandbox_id", "at_us"])
    op.create_table("audit_segments", *_keys("tenant", "segment"), _us("position"))


def _keys(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String, primary_key=True) for name in names]


def _number_key(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, primary_key=True, autoincrement=False)


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String, nullable=False)


def _body(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _bytes(name: str) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=False)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False)


def _us(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)

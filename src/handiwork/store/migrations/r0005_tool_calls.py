"""Tool calls by session and id: a brain chooses the ids of its own sessions' calls."""

from alembic import op
from sqlalchemy import BigInteger, Boolean, Column, String, Text

revision = "0005"
down_revision = "0004"

_COLUMNS = (
    "tenant, session_id, tool_use_id, name, custom, state, reason, result, started_us, updated_us"
)


def upgrade() -> None:
    """Make the table anew with the longer key, and move the rows."""
    op.create_table(
        "tool_calls_by_session",
        *(
            Column(name, String, primary_key=True)
            for name in ("tenant", "session_id", "tool_use_id")
        ),
        Column("name", String, nullable=False),
        Column("custom", Boolean, nullable=False),
        Column("state", String, nullable=False),
        Column("reason", Text, nullable=False),
        Column("result", Text, nullable=True),
        Column("started_us", BigInteger, nullable=False),
        Column("updated_us", BigInteger, nullable=False),
    )
    op.execute(
        f"INSERT INTO tool_calls_by_session ({_COLUMNS}) SELECT {_COLUMNS} FROM tool_calls"  # noqa: S608  names of our own
    )
    op.drop_table("tool_calls")
    op.rename_table("tool_calls_by_session", "tool_calls")
    op.create_index("tool_calls_of_session", "tool_calls", ["tenant", "session_id", "state"])


def downgrade() -> None:
    """An older version does not read a newer file."""
    raise NotImplementedError

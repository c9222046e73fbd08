"""Generations of sandboxes, the names that keep them, how the last try went; notices for brains."""

from alembic import op
from sqlalchemy import BigInteger, Column, Integer, String, Text

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "snapshots",
        Column("tenant", String, primary_key=True),
        Column("sandbox_id", String, primary_key=True),
        Column("number", Integer, primary_key=True, autoincrement=False),
        Column("body", Text, nullable=False),
    )
    op.create_table(
        "snapshot_pins",
        *(Column(name, String, primary_key=True) for name in ("tenant", "sandbox_id", "name")),
        Column("number", Integer, nullable=False),
    )
    op.create_table(
        "snapshot_states",
        *(Column(name, String, primary_key=True) for name in ("tenant", "sandbox_id")),
        Column("body", Text, nullable=False),
    )
    op.create_table(
        "notices",
        *(Column(name, String, primary_key=True) for name in ("tenant", "id")),
        Column("session_id", String, nullable=False),
        Column("at_us", BigInteger, nullable=False),
        Column("body", Text, nullable=False),
    )
    op.create_index("notices_of_session", "notices", ["tenant", "session_id", "at_us"])


def downgrade() -> None:
    """An older version does not read a newer file."""
    raise NotImplementedError

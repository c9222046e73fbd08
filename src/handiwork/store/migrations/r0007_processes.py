"""Processes that outlive the call that started them."""

from alembic import op
from sqlalchemy import BigInteger, Column, String, Text

revision = "0007"
down_revision = "0005"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "processes",
        *(Column(name, String, primary_key=True) for name in ("tenant", "id")),
        Column("sandbox_id", String, nullable=False),
        Column("state", String, nullable=False),
        Column("started_us", BigInteger, nullable=False),
        Column("body", Text, nullable=False),
    )
    op.create_index("processes_of_sandbox", "processes", ["tenant", "sandbox_id", "started_us"])


def downgrade() -> None:
    """An older version does not read a newer file."""
    raise NotImplementedError

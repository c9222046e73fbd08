"""Settings of agents by environment and agent id.

What was written before names no environment: it is kept under the empty one, which no session has.
"""

from alembic import op
from sqlalchemy import Column, String, Text

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table anew with the longer key, and move the rows."""
    op.create_table(
        "agents_by_environment",
        *(
            Column(name, String, primary_key=True)
            for name in ("tenant", "environment_id", "agent_id")
        ),
        Column("body", Text, nullable=False),
    )
    op.execute(
        "INSERT INTO agents_by_environment (tenant, environment_id, agent_id, body)"
        " SELECT tenant, '', agent_id, body FROM agents"
    )
    op.drop_table("agents")
    op.rename_table("agents_by_environment", "agents")


def downgrade() -> None:
    """An older version does not read a newer file."""
    raise NotImplementedError

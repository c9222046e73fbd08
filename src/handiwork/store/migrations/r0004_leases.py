"""Leases by environment and work id: two brains may give items of one id."""

from alembic import op
from sqlalchemy import Column, String, Text

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table anew with the longer key, and move the rows: their bodies name the environment."""
    op.create_table(
        "leases_by_environment",
        *(
            Column(name, String, primary_key=True)
            for name in ("tenant", "environment_id", "work_id")
        ),
        Column("body", Text, nullable=False),
    )
    op.execute(
        "INSERT INTO leases_by_environment (tenant, environment_id, work_id, body)"
        " SELECT tenant, json_extract(body, '$.lease.work.environment_id'), work_id, body FROM leases"
    )
    op.drop_table("leases")
    op.rename_table("leases_by_environment", "leases")


def downgrade() -> None:
    """An older version does not read a newer file."""
    raise NotImplementedError

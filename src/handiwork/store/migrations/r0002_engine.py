"""Tables of the session engine: leases, received webhooks, models, runs, placeholders."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make the tables."""
    op.create_table("leases", *_keys("tenant", "work_id"), _body("body"))
    op.create_table("webhooks", *_keys("tenant", "id"), _us("received_us"), _body("body"))
    op.create_index("webhooks_newest", "webhooks", ["tenant", "received_us"])
    op.create_table("models", *_keys("tenant", "name"), _body("body"))
    op.create_table("runs", *_keys("tenant", "id"), _us("created_us"), _body("body"))
    op.create_index("runs_newest", "runs", ["tenant", "created_us"])
    op.create_table("placeholders", *_keys("tenant", "session_id", "name"), _body("body"))


def _keys(*names: str) -> list[sa.Column[str]]:
    return [sa.Column(name, sa.String, primary_key=True) for name in names]


def _body(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=False)


def _us(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def downgrade() -> None:
    """An older version does not read a newer file."""
    raise NotImplementedError

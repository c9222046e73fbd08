"""Memory stores, skills, vaults, webhook endpoints, and keys that this server makes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


def _bytes(name: str, *, nullable: bool = False) -> sa.Column[bytes]:
    return sa.Column(name, sa.LargeBinary, nullable=nullable)


def _documents(name: str, *more: sa.Column[str] | sa.Column[bytes]) -> None:
    op.create_table(
        name,
        _key("id"),
        _text("tenant_id"),
        _text("created_at"),
        _text("archived_at", nullable=True),
        _bytes("body"),
        *more,
    )


def upgrade() -> None:
    """Create the tables; keys get a name and a birth."""
    op.add_column("keys", _text("id", nullable=True))
    op.add_column("keys", _text("created_at", nullable=True))
    _memory()
    _documents("skills")
    _documents("skill_versions", _text("skill_id"), _bytes("archive"))
    op.create_index("skill_versions_by_time", "skill_versions", ["skill_id", "created_at"])
    _documents("vaults")
    _documents("credentials", _text("vault_id"), _bytes("sealed", nullable=True))
    op.create_index("credentials_by_time", "credentials", ["vault_id", "created_at"])
    _documents("webhook_endpoints", _text("signing_key"))
    op.create_table(
        "webhook_deliveries",
        _key("id"),
        _text("tenant_id"),
        _text("endpoint_id"),
        sa.Column("attempts", sa.Integer, nullable=False),
        _text("due_at"),
        _bytes("body"),
    )
    op.create_index("webhook_deliveries_by_time", "webhook_deliveries", ["due_at"])


def _memory() -> None:
    _documents("memory_stores")
    op.create_table(
        "memories",
        _key("id"),
        _text("tenant_id"),
        _text("store_id"),
        _text("path"),
        _text("version_id"),
        _bytes("body"),
        _text("content"),
        sa.UniqueConstraint("store_id", "path"),
    )
    op.create_index("memories_by_version", "memories", ["version_id"])
    op.create_table(
        "memory_versions",
        _key("id"),
        _text("tenant_id"),
        _text("store_id"),
        _text("memory_id"),
        _text("created_at"),
        _text("operation"),
        _text("api_key_id", nullable=True),
        _text("author_session_id", nullable=True),
        _bytes("body"),
        _text("content", nullable=True),
    )
    op.create_index("memory_versions_by_time", "memory_versions", ["store_id", "created_at"])
    op.create_table("attached_stores", _key("session_id"), _key("store_id"), _text("tenant_id"))


def downgrade() -> None:
    """A file that this program upgraded is not taken back."""
    raise NotImplementedError

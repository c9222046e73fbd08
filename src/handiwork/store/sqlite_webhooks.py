"""Webhooks that were received, in the database."""

from datetime import datetime

from sqlalchemy import Connection, delete, insert, select

from handiwork.model.webhook import ReceivedWebhook
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import microseconds, webhooks


class SqliteWebhooks:
    """Implements `store.protocol.Webhooks`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def add(
        self, webhook: ReceivedWebhook, *, keep_from: datetime, keep_at_most: int
    ) -> bool:
        """Add it unless its id is there; drop what is older, and beyond the newest."""
        rows.check_tenant(self._tenant, webhook.tenant)
        values = {
            "tenant": self._tenant,
            "id": webhook.id,
            "received_us": microseconds(webhook.received_at),
            "body": rows.encoded(webhook),
        }
        ours = webhooks.c.tenant == self._tenant

        def change(to: Connection) -> bool:
            known = select(webhooks.c.id).where(ours, webhooks.c.id == webhook.id)
            if to.execute(known).first() is not None:
                return False
            to.execute(insert(webhooks), values)
            oldest = (
                select(webhooks.c.received_us)
                .where(ours)
                .order_by(webhooks.c.received_us.desc())
                .offset(keep_at_most)
                .limit(1)
            )
            beyond = to.execute(oldest).scalar()
            cut = max(microseconds(keep_from) - 1, -1 if beyond is None else beyond)
            to.execute(delete(webhooks).where(ours, webhooks.c.received_us <= cut))
            return True

        return await self._database.write(change)

    async def list(self, *, limit: int = 100) -> list[ReceivedWebhook]:
        """Return the newest first."""
        query = (
            select(webhooks.c.body)
            .where(webhooks.c.tenant == self._tenant)
            .order_by(webhooks.c.received_us.desc(), webhooks.c.id.desc())
            .limit(limit)
        )
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, ReceivedWebhook) for body in bodies]

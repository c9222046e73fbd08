"""Webhooks that a control plane received."""

from handiwork.client.link import Link
from handiwork.model.webhook import ReceivedWebhook
from handiwork.model.wire import Listing


class Webhooks:
    """`hw.webhooks`: look at what brains sent; its words are theirs."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self, *, limit: int = 100) -> list[ReceivedWebhook]:
        """List those that were kept, newest first."""
        query = {"limit": limit}
        found = await self._link.get("/api/webhooks", Listing[ReceivedWebhook], query)
        return list(found.data)

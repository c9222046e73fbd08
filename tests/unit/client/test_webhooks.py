"""Received webhooks through the client."""

from api_stand_in import NOW, Served
from handiwork import Handiwork
from handiwork.model.webhook import ReceivedWebhook


async def test_the_newest_come_first(hw: Handiwork, served: Served) -> None:
    for name in ("a", "b"):
        webhook = ReceivedWebhook(id=name, kind="session.created", received_at=NOW)
        await served.store.webhooks.add(webhook, keep_from=NOW, keep_at_most=9)
    assert [one.id for one in await hw.webhooks.list()] == ["b", "a"]
    assert [one.id for one in await hw.webhooks.list(limit=1)] == ["b"]

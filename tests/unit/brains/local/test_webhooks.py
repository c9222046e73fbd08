"""Deliveries are signed, tried at most three times, kept over a restart, and bounded."""

import asyncio
import contextlib
import json

import pytest
from sqlalchemy import func, select
from standardwebhooks import Webhook

from handiwork.brains.local import webhooks as rules
from handiwork.brains.local.clock import StrictClock
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.tables import WEBHOOK_DELIVERIES
from handiwork.brains.local.webhooks import Webhooks, keep_deliveries
from webhook_receiver import receiving

KIND = "session.status_idled"


@pytest.fixture
def webhooks(services):
    return services.webhooks


@contextlib.asynccontextmanager
async def running(webhooks):
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(webhooks.run())
        yield
        task.cancel()


async def tell(services, webhooks, *kinds: str) -> None:
    staged = webhooks.stage("sesn_1", kinds or (KIND,))
    await services.database.write(lambda each: keep_deliveries(each, staged))
    webhooks.offer(staged)


async def kept(services) -> int:
    query = select(func.count()).select_from(WEBHOOK_DELIVERIES)
    return await services.database.read(lambda each: each.execute(query).scalar_one())


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def nothing_kept(services):
    async def check() -> bool:
        return await kept(services) == 0

    return check


async def test_a_delivery_verifies_with_the_secret_shown_once(services, webhooks, hand):
    async with receiving() as receiver, running(webhooks):
        made = await webhooks.create(receiver.url, [KIND])
        await tell(services, webhooks, "session.running", KIND)
        [told] = await receiver.heard(1)
        signed = Webhook(made["signing_secret"])
        expected = signed.sign(told.headers["webhook-id"], hand.now, told.body.decode())
        assert told.headers["webhook-signature"] == expected
        event = json.loads(told.body)
        assert (event["type"], event["id"]) == ("event", told.headers["webhook-id"])
        assert (event["data"]["type"], event["data"]["id"]) == (KIND, "sesn_1")
        await until(nothing_kept(services))
    assert "signing_secret" not in webhooks.get(made["id"])


async def test_a_failing_endpoint_is_tried_three_times_with_new_stamps(services, webhooks, hand):
    async with receiving(500, 429, 503) as receiver, running(webhooks):
        made = await webhooks.create(receiver.url, [KIND])
        await tell(services, webhooks)
        for attempt in (1, 2):
            await receiver.heard(attempt)
            await until(lambda: _settled(webhooks))
            assert await kept(services) == 1
            hand.advance(119)
            webhooks._wake.set()
        told = await receiver.heard(3)
        await until(nothing_kept(services))
    assert len({each.headers["webhook-id"] for each in told}) == 1
    assert len({each.headers["webhook-timestamp"] for each in told}) == 3
    assert webhooks.get(made["id"])["dropped"] == 1
    assert webhooks.get(made["id"])["status"] == "enabled"


async def _settled(webhooks) -> bool:
    return not webhooks._under_way


async def test_an_endpoint_that_redirects_is_disabled_at_once(services, webhooks):
    async with receiving(302) as receiver, running(webhooks):
        made = await webhooks.create(receiver.url, [KIND])
        await tell(services, webhooks)
        await receiver.heard(1)
        await until(nothing_kept(services))
        await tell(services, webhooks)
    found = webhooks.get(made["id"])
    assert (found["status"], found["disabled_reason"]) == ("disabled", "it answered 302")
    assert len(receiver.requests) == 1
    assert await kept(services) == 0


async def test_an_endpoint_that_fails_for_a_day_is_disabled_and_a_2xx_resets(
    services, webhooks, hand
):
    async with receiving(500, 200, 500) as receiver, running(webhooks):
        made = await webhooks.create(receiver.url, [KIND])
        await tell(services, webhooks)
        await receiver.heard(1)
        await until(lambda: _settled(webhooks))
        hand.advance(23 * 3600)
        webhooks._wake.set()
        await until(nothing_kept(services))
        assert webhooks.get(made["id"])["failing_since"] is None
        await tell(services, webhooks)
        await receiver.heard(3)
        await until(lambda: _settled(webhooks))
        hand.advance(25 * 3600)
        webhooks._wake.set()
        await until(nothing_kept(services))
    assert webhooks.get(made["id"])["disabled_reason"] == "it took nothing for 24 hours"


async def test_what_waits_survives_a_restart(services, webhooks, hand, new_id):
    async with receiving() as receiver:
        await webhooks.create(receiver.url, [KIND])
        await tell(services, webhooks)
        later = Webhooks(
            services.database, StrictClock(hand), new_id, bytes, services.webhooks.callbacks
        )
        await later.load()
        async with running(later):
            [told] = await receiver.heard(1)
            await until(nothing_kept(services))
    assert json.loads(told.body)["data"]["type"] == KIND


async def test_a_delivery_of_a_deleted_endpoint_is_dropped(services, webhooks, hand, new_id):
    made = await webhooks.create("http://127.0.0.1:9/", [KIND])
    staged = webhooks.stage("sesn_1", [KIND])
    await webhooks.delete(made["id"])
    await services.database.write(lambda each: keep_deliveries(each, staged))
    webhooks.offer(staged)
    later = Webhooks(
        services.database, StrictClock(hand), new_id, bytes, services.webhooks.callbacks
    )
    await later.load()
    assert await kept(services) == 0


async def test_no_answer_counts_as_a_failed_attempt(services, webhooks):
    async with receiving() as receiver:
        url = receiver.url
    made = await webhooks.create(url, [KIND])
    async with running(webhooks):
        await tell(services, webhooks)
        await until(lambda: _has_failed(webhooks, made["id"]))
    assert await kept(services) == 1


async def _has_failed(webhooks, endpoint_id: str) -> bool:
    return webhooks.get(endpoint_id)["failing_since"] is not None


async def test_a_slow_endpoint_leaves_room_for_others(services, webhooks):
    async with receiving() as slow, receiving() as quick, running(webhooks):
        slow.hold.clear()
        await webhooks.create(slow.url, [KIND])
        for _ in range(rules.CONCURRENT + 2):
            await tell(services, webhooks)
        await slow.heard(rules.CONCURRENT_EACH)
        await webhooks.create(quick.url, ["session.created"])
        await tell(services, webhooks, "session.created")
        await quick.heard(1)
        assert len(slow.requests) == rules.CONCURRENT_EACH


async def test_what_waits_for_an_endpoint_is_bounded(services, webhooks, monkeypatch):
    monkeypatch.setattr(rules, "MAX_WAITING", 2)
    made = await webhooks.create("http://127.0.0.1:9/", [KIND])
    for _ in range(4):
        await tell(services, webhooks)
    assert await kept(services) == 2
    assert webhooks.get(made["id"])["dropped"] == 2
    await webhooks.delete(made["id"])
    assert await kept(services) == 0
    with pytest.raises(WireError, match="does not exist"):
        webhooks.get(made["id"])


async def test_endpoints_are_bounded_and_without_one_nothing_is_staged(webhooks, monkeypatch):
    assert list(webhooks.stage("sesn_1", [KIND])) == []
    monkeypatch.setattr(rules, "MAX_ENDPOINTS", 0)
    with pytest.raises(WireError, match="0 webhook endpoints"):
        await webhooks.create("http://127.0.0.1:9/", [KIND])

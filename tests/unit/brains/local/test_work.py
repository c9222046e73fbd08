"""Queues on disk: polls that wait, leases that lapse, items that survive."""

import asyncio
from datetime import timedelta

import pytest

from handiwork.brains.local.queue import NO_HEARTBEAT, State
from handiwork.brains.local.work import WorkQueues, work_view
from handiwork.model.errors import NotFoundError

NOW, SOON, RECLAIM = timedelta(0), timedelta(seconds=5), timedelta(seconds=5)


def poll(work, block=NOW):
    return work.poll("env_1", block=block, reclaim_after=RECLAIM, poller="p1")


async def test_a_waiting_poll_is_woken_by_work(services):
    work = services.work
    waiting = asyncio.ensure_future(poll(work, SOON))
    await asyncio.sleep(0.01)
    work.offer("env_1", "sesn_1")
    work.wake("env_1")
    async with asyncio.timeout(2):
        item = await waiting
    assert item.subject_id == "sesn_1"
    assert work_view(item, "s")["secret"] == "s"
    assert work.stats("env_1")[1] == 1


async def test_close_ends_waiting_polls(services):
    waiting = asyncio.ensure_future(poll(services.work, SOON))
    await asyncio.sleep(0.01)
    services.work.close()
    assert await waiting is None


async def test_items_are_taken_up_again_after_a_restart(services):
    await services.work.add_healthcheck("env_1")
    again = WorkQueues(services.database, services.clock, services.new_id)
    await again.load()
    assert (await poll(again)).kind == "healthcheck"


async def test_lapsed_leases_go_back_to_the_queue(services, hand, settle):
    work = services.work
    work.offer("env_1", "sesn_1")
    work.open_turns.add("sesn_1")
    item = await poll(work)
    await work.acknowledge("env_1", item.id)
    await work.beat("env_1", item.id, expected=NO_HEARTBEAT, lease_seconds=1, epoch=0)
    watching = asyncio.ensure_future(work.watch_leases())
    hand.advance(2)
    work.wake("env_1")
    await settle(lambda: work.remembered("env_1", item.id).state is State.QUEUED)
    watching.cancel()
    assert (await work.get("env_1", item.id)).epoch == 1


async def test_items_are_found_by_id_alone_or_not_at_all(services):
    [item] = services.work.offer("env_1", "sesn_1")
    assert services.work.locate(item.id) == item
    with pytest.raises(NotFoundError):
        services.work.locate("work_none")
    with pytest.raises(NotFoundError):
        await services.work.get("env_1", "work_none")
    [ended] = services.work.end_for("env_1", "sesn_1", force=True)
    assert ended.state is State.STOPPED
    assert services.work.end_for("env_1", "sesn_1", force=True) == []

"""How environments stand, on brains and leases in memory."""

import asyncio
from datetime import timedelta

import pytest

from handiwork.model.environment import KeptLease, QueueStats
from handiwork.model.session import WorkItem
from handiwork.sessions import environments as module
from handiwork.sessions.environments import Environments, Served
from session_world import World, call, clock, until


class Looks:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def of(self, world: World) -> Environments:
        served = Served(
            base_url="https://brain.test", brain=world.brain, dispatcher=world.dispatcher
        )
        return Environments([served], world.store.leases, clock=clock, now=lambda: self.now)


async def test_what_an_environment_tells(world: World) -> None:
    world.agent()
    async with world:
        environments = Looks().of(world)
        world.brain.say("sesn_1", call("a", "sleep 0.3"))
        await until(lambda: world.dispatcher.serving == ("sesn_1",))
        for number in (1, 2):
            work = WorkItem(
                id=f"work_{number}",
                environment_id="env_fake" if number == 1 else "env_other",
                kind="session",
                session_id="sesn_1",
                secret="very-secret",
            )
            beaten_at = clock() - timedelta(seconds=3)
            await world.store.leases.save(
                KeptLease(work=work, last_heartbeat="t", ttl_seconds=60, beaten_at=beaten_at)
            )
        [status] = await environments.status()
        await world.posted(1)
    assert (status.id, status.base_url) == ("env_fake", "https://brain.test")
    assert (status.state, status.reason) == ("polling", "")
    assert status.since <= clock()
    assert status.queue == QueueStats(depth=0, workers_polling=1)
    assert status.sessions == ("sesn_1",)
    [held] = status.leases
    assert (held.work_id, held.session_id, held.ttl_seconds) == ("work_1", "sesn_1", 60)
    assert 3 <= held.last_beat_seconds < 60
    assert "very-secret" not in repr(status)


async def test_a_queue_is_counted_once_for_all_who_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = 0

    async def stats() -> QueueStats:
        nonlocal counted
        counted += 1
        return QueueStats(depth=counted)

    async with world:
        monkeypatch.setattr(world.brain, "stats", stats)
        looks = Looks()
        environments = looks.of(world)
        depths = []
        for looks.now in (0.0, 4.9, 5.0):
            [status] = await environments.status()
            assert status.queue is not None
            depths.append(status.queue.depth)
    assert depths == [1, 1, 2]


@pytest.mark.parametrize("slow", [True, False])
async def test_a_brain_that_cannot_be_asked_is_told_of(
    world: World, monkeypatch: pytest.MonkeyPatch, slow: bool
) -> None:
    async def never() -> QueueStats:
        await asyncio.Event().wait()
        return QueueStats()

    async with world:
        environments = Looks().of(world)
        if slow:
            monkeypatch.setattr(module, "COUNT_SECONDS", 0.05)
            monkeypatch.setattr(world.brain, "stats", never)
        else:
            world.brain.unavailable = "connection refused"
        [status] = await environments.status()
    assert status.queue is None
    assert ("did not count" if slow else "connection refused") in status.queue_error

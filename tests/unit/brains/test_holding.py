"""Holding leases: what is on record for a successor, and when. A line in memory stands for the brain."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from handiwork.brains import holding as module
from handiwork.brains.holding import Holding, Records
from handiwork.brains.lease import NO_HEARTBEAT, Beat
from handiwork.model.environment import KeptLease
from handiwork.model.errors import BrainUnavailableError, LeaseLostError, NotFoundError
from handiwork.model.session import WorkItem
from handiwork.testing.store import MemoryLeases

WORK = WorkItem(
    id="work_1", environment_id="env_1", kind="session", session_id="sesn_1", secret="s"
)
START = datetime(2026, 11, 21, tzinfo=UTC)


class Wire:
    """Answers beats with numbered times; `fault` is raised instead, `stuck` never answers."""

    def __init__(self) -> None:
        self.expected: list[str] = []
        self.ends = 0
        self.ttl = 0.6
        self.state = "active"
        self.fault: Exception | None = None
        self.end_fault: Exception | None = None
        self.stuck = False

    async def beat(self, work: WorkItem, expected: str) -> Beat:
        self.expected.append(expected)
        if self.stuck:
            await asyncio.Event().wait()
        if self.fault is not None:
            raise self.fault
        return Beat(
            last_heartbeat=f"2026-11-21T00:00:00.{len(self.expected)}+00:00",
            lease_extended=True,
            state=self.state,
            ttl_seconds=self.ttl,
        )

    def lost(self, work: WorkItem) -> None:
        assert work.id

    async def end(self, work: WorkItem) -> None:
        self.ends += 1
        if self.end_fault is not None:
            raise self.end_fault


class Clock:
    def __init__(self) -> None:
        self.at = START

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "jittered", lambda seconds: min(seconds, 0.01))


def holding(wire: Wire, leases: MemoryLeases, clock: Clock | None = None) -> Holding:
    loop = asyncio.get_running_loop()
    return Holding(wire, Records(leases, clock or Clock()), loop.time)


async def eventually(held: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 5
    while not held():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.005)


async def test_the_lease_is_on_record_before_the_body_runs_and_after_each_beat() -> None:
    wire, leases = Wire(), MemoryLeases()
    async with holding(wire, leases).hold(WORK):
        [kept] = await leases.list()
        assert kept == KeptLease(
            work=WORK,
            last_heartbeat="2026-11-21T00:00:00.1+00:00",
            ttl_seconds=0.6,
            beaten_at=START,
        )
        await eventually(lambda: len(wire.expected) == 3)
        [kept] = await leases.list()
        assert kept.last_heartbeat in (wire.expected[2], "2026-11-21T00:00:00.3+00:00")
    assert wire.expected[0] == NO_HEARTBEAT
    assert wire.expected[1] == "2026-11-21T00:00:00.1+00:00"
    assert await leases.list() == []
    assert wire.ends == 1


async def test_a_successor_goes_on_where_the_record_stands() -> None:
    wire, leases, clock = Wire(), MemoryLeases(), Clock()
    kept = KeptLease(work=WORK, last_heartbeat="odd+value", ttl_seconds=60, beaten_at=START)
    await leases.save(kept)
    clock.at += timedelta(seconds=59)
    successor = holding(wire, leases, clock)
    assert await successor.resume("env_other") == []
    assert await successor.resume("env_1") == [WORK]
    async with successor.hold(WORK):
        assert wire.expected == ["odd+value"]
    async with successor.hold(WORK):
        assert wire.expected[-1] == NO_HEARTBEAT


async def test_an_item_is_on_record_from_its_claim_on() -> None:
    """A crash between the acknowledgement and the first beat would leave it to nobody."""
    wire, leases, clock = Wire(), MemoryLeases(), Clock()
    await holding(wire, leases, clock).claimed(WORK)
    clock.at += timedelta(seconds=module.CLAIMED_TTL_SECONDS - 1)
    successor = holding(wire, leases, clock)
    assert await successor.resume("env_1") == [WORK]
    async with successor.hold(WORK):
        assert wire.expected == [NO_HEARTBEAT]
    assert await leases.list() == []


async def test_an_item_that_was_refused_is_off_the_record() -> None:
    wire, leases = Wire(), MemoryLeases()
    held = holding(wire, leases)
    await held.claimed(WORK)
    await held.refused(WORK)
    assert (await leases.list(), wire.ends) == ([], 1)


async def test_a_record_that_lapsed_is_a_lost_lease_and_its_item_is_left_alone() -> None:
    wire, leases, clock = Wire(), MemoryLeases(), Clock()
    await leases.save(KeptLease(work=WORK, last_heartbeat="t", ttl_seconds=60, beaten_at=START))
    clock.at += timedelta(seconds=61)
    successor = holding(wire, leases, clock)
    await successor.resume("env_1")
    with pytest.raises(LeaseLostError):
        async with successor.hold(WORK):
            pytest.fail("the body ran")
    assert (wire.ends, await leases.list()) == (0, [])


async def test_a_lease_that_another_holds_is_off_the_record_and_not_stopped() -> None:
    wire, leases = Wire(), MemoryLeases()

    async def body() -> None:
        wire.fault = LeaseLostError("412")
        await asyncio.sleep(5)

    with pytest.raises(LeaseLostError):
        async with holding(wire, leases).hold(WORK):
            await body()
    assert (wire.ends, await leases.list()) == (0, [])


@pytest.mark.parametrize("stuck", [True, False])
async def test_silence_for_a_whole_lease_ends_the_body_in_time(stuck: bool) -> None:
    wire, leases = Wire(), MemoryLeases()

    async def body() -> None:
        wire.stuck, wire.fault = stuck, BrainUnavailableError("down")
        await asyncio.sleep(5)
        pytest.fail("the body outlived its lease")

    with pytest.raises(LeaseLostError):
        async with holding(wire, leases).hold(WORK):
            await body()
    assert wire.ends == 0


async def test_an_item_that_could_not_be_stopped_stays_on_record() -> None:
    wire, leases = Wire(), MemoryLeases()
    wire.end_fault = BrainUnavailableError("down")
    async with holding(wire, leases).hold(WORK):
        pass
    assert wire.ends == module.STOP_TRIES
    assert [kept.work for kept in await leases.list()] == [WORK]


async def test_an_item_that_the_brain_will_not_stop_is_over() -> None:
    wire, leases = Wire(), MemoryLeases()
    wire.end_fault = NotFoundError("gone")
    async with holding(wire, leases).hold(WORK):
        pass
    assert (wire.ends, await leases.list()) == (1, [])


async def test_a_brain_that_is_too_slow_to_stop_does_not_keep_us(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "STOP_SECONDS", 0.05)
    wire = Wire()

    async def end(work: WorkItem) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(wire, "end", end)
    assert not await holding(wire, MemoryLeases()).stop(WORK)


async def test_an_item_that_is_stopping_at_the_first_beat_runs_nothing_for_long() -> None:
    wire, leases = Wire(), MemoryLeases()
    wire.state = "stopping"
    finished = False
    async with holding(wire, leases).hold(WORK):
        await asyncio.sleep(5)
        finished = True
    assert not finished
    assert (wire.ends, await leases.list()) == (1, [])


def test_a_pause_is_between_half_and_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert all(0.5 <= module.jittered(1) <= 1 for _ in range(50))


async def test_an_item_whose_stop_could_not_be_told_is_stopped_once_the_brain_is_back() -> None:
    wire, leases = Wire(), MemoryLeases()
    wire.ttl = 60
    held = holding(wire, leases)
    wire.end_fault = BrainUnavailableError("away")
    async with held.hold(WORK):
        pass
    tried = wire.ends
    await held.stop_owed()
    assert wire.ends == tried + 1
    assert [kept.work for kept in await leases.list()] == [WORK]
    wire.end_fault = None
    await held.stop_owed()
    await held.stop_owed()
    assert wire.ends == tried + 2
    assert await leases.list() == []


async def test_a_lapsed_lease_is_over_though_its_stop_was_never_told() -> None:
    wire, leases = Wire(), MemoryLeases()
    wire.ttl = 0.05
    held = holding(wire, leases)
    wire.end_fault = BrainUnavailableError("away")
    async with held.hold(WORK):
        pass
    await asyncio.sleep(0.06)
    tried = wire.ends
    await held.stop_owed()
    assert await leases.list() == []
    assert wire.ends == tried  # it may be another's item by now

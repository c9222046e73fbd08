"""Snapshots by themselves: at sleep, given up at wake; lost files made again, or nothing started."""

import asyncio
import threading

import msgspec
import pytest

from handiwork.config import SandboxSettings, SessionSettings, Settings
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.sessions.reaper import reap
from handiwork.sessions.sandbox_request import SandboxRequest
from keeping_world import KeepingWorld
from session_world import call, clock, until


async def box(world: KeepingWorld, **request: str) -> SandboxRecord:
    record = await world.sandboxes.create(SandboxRequest(**request))
    await (await world.sandboxes.use(record.id)).files.write("/workspace/a", b"one")
    return record


def idle(world: KeepingWorld, **more: object) -> None:
    world.snapshots = msgspec.structs.replace(world.snapshots, on_idle=True, **more)


def hanging(world: KeepingWorld) -> tuple[threading.Event, threading.Event]:
    """Have the store hang when something is put: what tells that it does, and what lets it go on."""
    asked, hangs = threading.Event(), threading.Event()

    def hang(verb: str, _key: str) -> None:
        if verb == "put":
            asked.set()
            hangs.wait(30)

    world.blobs.fault = hang
    return asked, hangs


async def reasons(world: KeepingWorld, record: SandboxRecord) -> list[str]:
    return [one.reason for one in await world.shelf.all(record.id)]


async def test_one_at_every_sleep_and_at_the_end(keeping: KeepingWorld) -> None:
    idle(keeping)
    async with keeping:
        first, second = await box(keeping), await box(keeping)
        await keeping.sandboxes.sleep(first.id)

        async def taken() -> bool:
            return await reasons(keeping, first) == ["idle"]

        await until(taken)
    assert await reasons(keeping, second) == ["stop"]


async def test_a_wake_waits_for_no_snapshot_and_the_next_sleep_takes_it(
    keeping: KeepingWorld,
) -> None:
    idle(keeping)
    async with keeping:
        record = await box(keeping)
        asked, hangs = hanging(keeping)
        await keeping.sandboxes.sleep(record.id)
        await asyncio.to_thread(asked.wait, 20)
        async with asyncio.timeout(20):
            await keeping.sandboxes.wake(record.id)
        keeping.blobs.fault = None
        hangs.set()
        assert await reasons(keeping, record) == []
        await keeping.sandboxes.sleep(record.id)

        async def taken() -> bool:
            return await reasons(keeping, record) == ["idle"]

        await until(taken)


def standing(world: KeepingWorld) -> None:
    """Have sandboxes stand still when they rest."""
    world.settings = msgspec.structs.replace(
        world.settings,
        sandbox=SandboxSettings(
            freeze_seconds=600, min_free_memory_mib=0, freeze_min_free_memory_mib=0
        ),
    )


async def test_one_while_it_stands_still_and_one_when_it_sleeps(keeping: KeepingWorld) -> None:
    idle(keeping)
    standing(keeping)
    async with keeping:
        record = await box(keeping)
        await keeping.sandboxes.rest(record.id)
        assert keeping.driver.live[record.id].rests

        async def taken() -> bool:
            return await reasons(keeping, record) == ["idle"]

        await until(taken)
        assert keeping.driver.settled == []
        assert keeping.driver.live[record.id].rests
        await keeping.sandboxes.sleep(record.id)
        await until(lambda: keeping.driver.settled == [record.id])
        assert await reasons(keeping, record) == ["idle", "idle"]


async def test_who_is_used_again_waits_for_no_snapshot_of_it_standing(
    keeping: KeepingWorld,
) -> None:
    idle(keeping)
    standing(keeping)
    async with keeping:
        record = await box(keeping)
        asked, hangs = hanging(keeping)
        await keeping.sandboxes.rest(record.id)
        await asyncio.to_thread(asked.wait, 20)
        async with asyncio.timeout(20):
            await keeping.sandboxes.use(record.id)
        keeping.blobs.fault = None
        hangs.set()
        assert not keeping.driver.live[record.id].rests
        assert await reasons(keeping, record) == []


async def test_what_comes_meanwhile_is_done_once_when_that_has_ended(keeping: KeepingWorld) -> None:
    done: list[str] = []
    goes_on = asyncio.Event()

    async def first() -> None:
        done.append("first")
        await goes_on.wait()

    def then(name: str):
        async def work() -> None:
            done.append(name)

        return work

    async with keeping:
        background = keeping.background
        background.begin("sbx_1", first)
        background.begin_once("sbx_1", then("call"))
        background.begin("sbx_1", then("sleep"))
        background.begin_once("sbx_1", then("late call"))
        background.begin("sbx_2", then("other"))
        await until(lambda: done == ["first", "other"])
        goes_on.set()
        await until(lambda: done == ["first", "other", "sleep"])
        background.begin("sbx_1", then("anew"))
        await until(lambda: done[-1] == "anew")
    assert done == ["first", "other", "sleep", "anew"]


async def test_who_interrupts_ends_what_waits_too(keeping: KeepingWorld) -> None:
    """Such as bringing files together of a sandbox that runs by then."""
    done: list[str] = []

    async def hang() -> None:
        await asyncio.Event().wait()

    async def late() -> None:
        done.append("late")

    async with keeping:
        keeping.background.begin("sbx_1", hang)
        keeping.background.begin("sbx_1", late)
        await keeping.background.interrupt("sbx_1")
        await keeping.background.interrupt("sbx_1")
    assert done == []


@pytest.mark.parametrize(("stop_seconds", "expected"), [(20, ["first", "next"]), (0.05, ["first"])])
async def test_the_end_gives_what_waits_its_time_too(
    keeping: KeepingWorld, stop_seconds: float, expected: list[str]
) -> None:
    done: list[str] = []

    async def first() -> None:
        done.append("first")
        await asyncio.sleep(0.1 if stop_seconds > 1 else 30)

    async def last() -> None:
        done.append("next")

    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, stop_seconds=stop_seconds)
    async with asyncio.timeout(15):
        async with keeping:
            keeping.background.begin("sbx_1", first)
            keeping.background.begin("sbx_1", last)
    assert done == expected


async def test_a_sleep_that_finds_a_call_s_snapshot_waiting_is_taken(keeping: KeepingWorld) -> None:
    idle(keeping, after_calls=True)
    async with keeping:
        record = await box(keeping)
        async with keeping.sandboxes.held(record.id):
            keeping.sandboxes.rest_unused(record.id)
            await asyncio.sleep(0.01)
            keeping.moves.written(record.id)  # it waits behind the rest, which ends in a sleep

        async def taken() -> bool:
            return "idle" in await reasons(keeping, record)

        await until(taken)
    assert await reasons(keeping, record) == ["idle"]


async def test_the_end_gives_snapshots_their_time_and_no_more(keeping: KeepingWorld) -> None:
    idle(keeping, stop_seconds=0.1)
    hangs = threading.Event()
    async with asyncio.timeout(30):
        async with keeping:
            record = await box(keeping)
            keeping.blobs.fault = lambda _verb, _key: bool(hangs.wait(30)) and None
    hangs.set()
    assert await reasons(keeping, record) == []
    assert (await keeping.store.snapshots.status(record.id)).failure == "it was interrupted"


async def test_lost_files_are_made_again(keeping: KeepingWorld) -> None:
    async with keeping:
        record = await box(keeping)
        await keeping.moves.take(record.id)
        await (await keeping.sandboxes.use(record.id)).files.write("/workspace/b", b"later")
        await keeping.sandboxes.sleep(record.id)
        keeping.lose(record.id)
        await reap(keeping.store, {"namespace": keeping.driver}, clock, keeping.background)
        told = await keeping.store.sandboxes.get(record.id)
        assert told.state is SandboxState.SLEEPING
        assert "it wakes from snapshot 1 of" in told.reason
        files = (await keeping.sandboxes.use(record.id)).files
        assert [one.name for one in await files.list("/workspace")] == ["a"]
        assert await keeping.background.recover(record, keeping.driver) == ""


async def test_without_a_snapshot_nothing_starts(keeping: KeepingWorld) -> None:
    async with keeping:
        record = await box(keeping)
        await keeping.sandboxes.sleep(record.id)
        keeping.lose(record.id)
        with pytest.raises(SandboxUnavailableError, match="there is no snapshot of it"):
            await keeping.sandboxes.wake(record.id)
        assert not (keeping.driver.root / record.id).exists()
        assert keeping.boundary.bindings == {}


async def test_a_store_that_is_away_starts_nothing_and_is_asked_again(
    keeping: KeepingWorld,
) -> None:
    async with keeping:
        record = await box(keeping)
        await keeping.moves.take(record.id)
        await keeping.sandboxes.sleep(record.id)
        keeping.lose(record.id)
        keeping.blobs.fail_at(0)
        with pytest.raises(SandboxUnavailableError, match="refuses to"):
            await keeping.sandboxes.wake(record.id)
        assert (await keeping.store.sandboxes.get(record.id)).state is SandboxState.SLEEPING
        keeping.blobs.fault = None
        await keeping.sandboxes.wake(record.id)


async def test_what_ran_when_we_were_killed_and_is_lost_sleeps_on_its_snapshot(
    keeping: KeepingWorld,
) -> None:
    async with keeping:
        kept, lost = await box(keeping), await box(keeping)
        await keeping.moves.take(kept.id)
        for record in (kept, lost):
            await keeping.sandboxes.sleep(record.id)
            running = msgspec.structs.replace(record, state=SandboxState.RUNNING)
            await keeping.store.sandboxes.save(running)
            keeping.lose(record.id)
        await keeping.sandboxes.adopt()
        states = [(await keeping.store.sandboxes.get(one.id)).state for one in (kept, lost)]
        assert states == [SandboxState.SLEEPING, SandboxState.FAILED]


async def test_a_last_one_before_it_is_closed_where_they_outlive_it(keeping: KeepingWorld) -> None:
    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, closed_seconds=60)
    async with keeping:
        running, asleep, broken = [await box(keeping) for _ in range(3)]
        await keeping.sandboxes.sleep(asleep.id)
        for record in (running, asleep):
            await keeping.sandboxes.close(record.id)
            assert await reasons(keeping, record) == ["before close"]
        keeping.blobs.fail_at(0)
        with pytest.raises(SandboxUnavailableError):
            await keeping.sandboxes.close(broken.id)
        assert (keeping.driver.root / broken.id).exists()
        assert (await keeping.store.sandboxes.get(broken.id)).state is SandboxState.SLEEPING
        assert keeping.background.closed.is_set()


async def test_the_brain_of_a_session_is_told_that_its_files_are_older(
    keeping: KeepingWorld,
) -> None:
    keeping.settings = Settings(
        sessions=SessionSettings(idle_seconds=0.05), sandbox=SandboxSettings(max_sandboxes=4)
    )
    async with keeping:
        keeping.agent()
        keeping.brain.say("sesn_1", call("c1", "echo one > a"))
        session = await keeping.session_in("sleeping")
        await keeping.moves.take(session.sandbox_id)
        keeping.lose(session.sandbox_id)
        keeping.brain.say("sesn_1", call("c2", "cat a"))
        result = (await keeping.posted(2))[1]
        assert "lost and are restored from snapshot 1 of" in result.content[0].text
        assert "one" in result.content[1].text
        assert "sandbox.restored" in await keeping.kinds()


async def test_files_are_brought_together_after_a_sleep_and_not_at_the_end(
    keeping: KeepingWorld,
) -> None:
    async with keeping:
        first, second = await box(keeping), await box(keeping)
        await keeping.sandboxes.sleep(first.id)

        async def settled() -> bool:
            return keeping.driver.settled == [first.id]

        await until(settled)
    assert keeping.driver.settled == [first.id]
    assert second.id in await keeping.driver.leftovers()


async def test_files_that_cannot_be_brought_together_stay_as_they_are(
    keeping: KeepingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(sandbox_id: str, disk_mib: int) -> None:
        keeping.driver.settled.append(sandbox_id)
        raise SandboxUnavailableError("the disk is full")

    monkeypatch.setattr(keeping.driver, "settle", refuse)
    async with keeping:
        record = await box(keeping)
        await keeping.sandboxes.sleep(record.id)

        async def tried() -> bool:
            return keeping.driver.settled == [record.id]

        await until(tried)
        assert await (await keeping.sandboxes.use(record.id)).files.read("/workspace/a") == b"one"

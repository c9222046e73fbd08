"""Manifests that the database does not tell of: told of, deleted, or left alone. Rows without one: dropped."""

import asyncio
import threading

import msgspec
import pytest
import structlog

from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import SandboxRecord
from handiwork.sandboxes.snapshots.manifest import manifest_key
from handiwork.sessions.sandbox_request import SandboxRequest
from handiwork.sessions.snapshots import orphans
from handiwork.sessions.snapshots.upkeep import Upkeep
from keeping_world import KeepingWorld
from session_world import until


async def box(world: KeepingWorld, count: int) -> SandboxRecord:
    record = await world.sandboxes.create(SandboxRequest())
    for number in range(count):
        await put(world, record, b"%d" % number)
        await world.moves.take(record.id)
    return record


async def put(world: KeepingWorld, record: SandboxRecord, data: bytes) -> None:
    await (await world.sandboxes.use(record.id)).files.write("/workspace/a", data * 50_000)


async def untold(world: KeepingWorld, count: int) -> SandboxRecord:
    """Make a sandbox whose newest generation is kept, as a kill right after that leaves it."""
    record = await box(world, count)
    await world.store.snapshots.remove(record.id, count)
    return record


async def rows(world: KeepingWorld, record: SandboxRecord) -> list[int]:
    return [one.number for one in await world.shelf.all(record.id)]


async def numbers(world: KeepingWorld, record: SandboxRecord) -> list[int]:
    return await world.shelf.numbers(record.id)


def upkeep(world: KeepingWorld, grace_seconds: float = 0.0) -> tuple[Upkeep, list[float]]:
    """Return who looks, and the time that they go by."""
    time = [0.0]
    settings = msgspec.structs.replace(world.snapshots, grace_seconds=grace_seconds)
    world.background.settings = settings
    return world.background.upkeep(lambda: time[0]), time


async def test_one_that_was_kept_and_never_told_is_told_after_the_grace(
    keeping: KeepingWorld,
) -> None:
    async with keeping:
        record = await untold(keeping, 2)
        look, time = upkeep(keeping, grace_seconds=100)
        for at, told in ((0.0, [1]), (99.0, [1]), (100.0, [2, 1])):
            time[0] = at
            await look.look()
            assert await rows(keeping, record) == told
        assert (await keeping.store.snapshots.status(record.id)).number == 2
        assert keeping.shelf.standing() == {"img": [f"the snapshots of {record.id}"]}
        await keeping.moves.pin(record.id, 2, "good")
        await keeping.sandboxes.sleep(record.id)
        keeping.lose(record.id)
        await keeping.sandboxes.wake(record.id)
        kept = keeping.driver.root / record.id / "workspace/a"
        assert kept.read_bytes() == b"1" * 50_000


async def test_a_taking_that_ends_before_its_row_is_written_loses_nothing(
    keeping: KeepingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_snapshot: object) -> None:
        raise SandboxUnavailableError("the database is full")

    async with keeping:
        record = await box(keeping, 1)
        await put(keeping, record, b"2")
        with monkeypatch.context() as broken:
            broken.setattr(keeping.store.snapshots, "put", refuse)
            with pytest.raises(SandboxUnavailableError, match="the database is full"):
                await keeping.moves.take(record.id)
        assert (await rows(keeping, record), await numbers(keeping, record)) == ([1], [2, 1])
        await upkeep(keeping)[0].look()
        assert await rows(keeping, record) == [2, 1]
        status = await keeping.store.snapshots.status(record.id)
        assert (status.number, status.failure) == (2, "the database is full")


async def test_an_interrupted_taking_whose_manifest_is_written_after_all(
    keeping: KeepingWorld,
) -> None:
    asked, hangs = threading.Event(), threading.Event()

    def hang(verb: str, _key: str) -> None:
        if verb == "put_if_absent":
            asked.set()
            hangs.wait(30)

    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, on_idle=True)
    async with keeping:
        record = await box(keeping, 0)
        await put(keeping, record, b"1")
        keeping.blobs.fault = hang
        await keeping.sandboxes.sleep(record.id)
        await asyncio.to_thread(asked.wait, 20)
        await keeping.sandboxes.wake(record.id)
        keeping.blobs.fault = None
        hangs.set()

        async def written() -> bool:
            return await numbers(keeping, record) == [1]

        await until(written)
        assert await rows(keeping, record) == []
        await upkeep(keeping)[0].look()
        assert await rows(keeping, record) == [1]


async def test_those_that_are_too_many_go_as_others_do(keeping: KeepingWorld) -> None:
    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, keep=2)
    async with keeping:
        record = await box(keeping, 4)
        for number in (1, 3):
            await keeping.store.snapshots.remove(record.id, number)
        await upkeep(keeping)[0].look()
        assert await rows(keeping, record) == await numbers(keeping, record) == [4, 3]


@pytest.mark.parametrize(("closed_seconds", "left"), [(0, []), (3600, [2, 1])])
async def test_of_a_closed_sandbox_it_goes_when_the_others_go(
    keeping: KeepingWorld, closed_seconds: float, left: list[int]
) -> None:
    async with keeping:
        record = await untold(keeping, 2)
        await keeping.sandboxes.close(record.id)
        keeping.snapshots = msgspec.structs.replace(
            keeping.snapshots, closed_seconds=closed_seconds
        )
        look, time = upkeep(keeping, grace_seconds=100)
        await look.look()
        assert 2 in await numbers(keeping, record)
        time[0] = 100.0
        await look.look()
        assert await rows(keeping, record) == await numbers(keeping, record) == left


async def test_of_a_sandbox_without_a_record_it_stays_and_is_told(keeping: KeepingWorld) -> None:
    """As with an older database put back: nothing else has these files any more."""
    async with keeping:
        record = await untold(keeping, 1)
        key = manifest_key("default", record.id, 1)
        stranger = manifest_key("default", "sbx_stranger", 7)
        keeping.blobs.kept[stranger] = keeping.blobs.kept[key]
        before = dict(keeping.blobs.kept)
        look, _ = upkeep(keeping)
        with structlog.testing.capture_logs() as logs:
            await look.look()
            await look.look()
        assert keeping.blobs.kept == before
        told = [one for one in logs if "without a record are kept" in one["event"]]
        assert [(one["count"], one["first"]) for one in told] == [(1, ["sbx_stranger"])] * 2
        assert any(stranger in one.get("reason", "") for one in logs)  # no pack goes meanwhile


async def test_a_damaged_one_stops_the_sweep_for_the_grace_and_no_longer(
    keeping: KeepingWorld,
) -> None:
    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, keep=1)
    async with keeping:
        record = await untold(keeping, 3)
        key = manifest_key("default", record.id, 3)
        keeping.damage(key)
        before = keeping.packs()
        look, time = upkeep(keeping, grace_seconds=100)
        with structlog.testing.capture_logs() as logs:
            for time[0] in (0.0, 99.0):
                await look.look()
        assert any(key in one.get("reason", "") for one in logs)
        assert keeping.packs() == before
        assert await numbers(keeping, record) == [3, 2]
        for time[0] in (100.0, 200.0):
            with structlog.testing.capture_logs() as logs:
                await look.look()
            if time[0] == 100.0:
                (told,) = [one for one in logs if "deleted" in one["event"]]
                assert (told["number"], "is damaged" in told["reason"]) == (3, True)
        assert await numbers(keeping, record) == await rows(keeping, record) == [2]
        assert len(keeping.packs()) == 1


async def test_a_damaged_one_that_is_told_of_is_never_deleted(keeping: KeepingWorld) -> None:
    async with keeping:
        record = await box(keeping, 2)
        keeping.damage(manifest_key("default", record.id, 1))
        before = dict(keeping.blobs.kept)
        look, _ = upkeep(keeping)
        await look.look()
        await look.look()
        assert keeping.blobs.kept == before


async def test_one_that_is_told_of_meanwhile_is_not_deleted(
    keeping: KeepingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotaged by taking the first finding for the truth, this fails."""
    async with keeping:
        record = await box(keeping, 1)
        (known,) = await keeping.shelf.all(record.id)
        await keeping.store.snapshots.remove(record.id, 1)
        keeping.damage(manifest_key("default", record.id, 1))
        alone, put_row = keeping.shelf.alone, keeping.store.snapshots.put

        class Late:
            """A taking that was under way: nothing is alone before it is over."""

            async def __aenter__(self) -> None:
                self.held = alone()
                await self.held.__aenter__()
                await put_row(known)

            async def __aexit__(self, *exc: object) -> None:
                await self.held.__aexit__(None, None, None)

        monkeypatch.setattr(keeping.shelf, "alone", Late)
        await upkeep(keeping)[0].look()
        assert await numbers(keeping, record) == [1]


async def test_a_store_that_is_away_leaves_all_as_it_is(keeping: KeepingWorld) -> None:
    async with keeping:
        record = await untold(keeping, 2)
        look, _ = upkeep(keeping)
        for step in range(3):
            keeping.blobs.fail_at(step)
            await look.look()
            keeping.blobs.fault = None
            assert await numbers(keeping, record) == [2, 1]
        await look.look()
        assert await rows(keeping, record) == [2, 1]


async def test_so_many_in_one_sweep(keeping: KeepingWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "MOST_ORPHANS", 2)
    async with keeping:
        record = await box(keeping, 3)
        for number in (1, 2, 3):
            await keeping.store.snapshots.remove(record.id, number)
        look, _ = upkeep(keeping)
        await look.look()
        assert await rows(keeping, record) == [2, 1]
        await look.look()
        assert await rows(keeping, record) == [3, 2, 1]


async def lost(world: KeepingWorld, count: int, number: int) -> SandboxRecord:
    """Make a sandbox one of whose rows has no manifest, as a kill in the midst of a deletion leaves it."""
    record = await box(world, count)
    del world.blobs.kept[manifest_key("default", record.id, number)]
    return record


async def test_a_row_that_lost_its_manifest_goes_after_the_grace(keeping: KeepingWorld) -> None:
    async with keeping:
        record = await lost(keeping, 3, 2)
        look, time = upkeep(keeping, grace_seconds=100)
        for at, told in ((0.0, [3, 2, 1]), (99.0, [3, 2, 1]), (100.0, [3, 1])):
            time[0] = at
            await look.look()
            assert await rows(keeping, record) == told
        assert await numbers(keeping, record) == [3, 1]


async def test_a_lost_row_that_is_pinned_stays_and_is_told(keeping: KeepingWorld) -> None:
    async with keeping:
        record = await lost(keeping, 2, 1)
        await keeping.moves.pin(record.id, 1, "secret-name")
        look, _ = upkeep(keeping)
        with structlog.testing.capture_logs() as logs:
            await look.look()
        assert await rows(keeping, record) == [2, 1]
        (told,) = [one for one in logs if "pinned" in one["event"]]
        assert (told["count"], told["first"]) == (1, [f"{record.id}/1"])
        assert "secret-name" not in str(logs)
        await keeping.moves.unpin(record.id, "secret-name")
        await look.look()
        assert await rows(keeping, record) == [2]


async def test_one_that_is_pinned_at_the_last_moment_stays(
    keeping: KeepingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with keeping:
        record = await lost(keeping, 2, 1)
        unlist = keeping.shelf.unlist

        async def late(sandbox_id: str, number: int) -> None:
            await keeping.moves.pin(sandbox_id, number, "good")
            await unlist(sandbox_id, number)

        monkeypatch.setattr(keeping.shelf, "unlist", late)
        await upkeep(keeping)[0].look()
        assert await rows(keeping, record) == [2, 1]


async def test_a_number_that_is_being_taken_anew_is_never_dropped(keeping: KeepingWorld) -> None:
    """Sabotaged by taking the first finding for the truth, this fails."""
    asked, goes_on = threading.Event(), threading.Event()

    def hang(verb: str, _key: str) -> None:
        if verb == "put_if_absent":
            asked.set()
            goes_on.wait(30)

    async with keeping:
        record = await lost(keeping, 2, 2)
        await put(keeping, record, b"new")
        keeping.blobs.fault = hang
        look, _ = upkeep(keeping)
        async with asyncio.TaskGroup() as group:
            group.create_task(keeping.moves.take(record.id))
            await asyncio.to_thread(asked.wait, 20)
            looking = group.create_task(look.look())
            await asyncio.sleep(0.2)
            assert not looking.done()  # nothing is alone before the taking is over
            goes_on.set()
        assert await rows(keeping, record) == await numbers(keeping, record) == [2, 1]


async def test_a_store_that_has_none_at_all_drops_no_row(keeping: KeepingWorld) -> None:
    """As one that is not mounted: the grace begins anew when it is back."""
    async with keeping:
        record = await lost(keeping, 3, 2)
        kept = dict(keeping.blobs.kept)
        look, time = upkeep(keeping, grace_seconds=100)
        await look.look()
        keeping.blobs.kept.clear()
        time[0] = 100.0
        with structlog.testing.capture_logs() as logs:
            await look.look()
        (told,) = [one for one in logs if "has none of those" in one["event"]]
        assert told["count"] == 3
        keeping.blobs.kept.update(kept)
        for time[0], left in ((150.0, [3, 2, 1]), (249.0, [3, 2, 1]), (250.0, [3, 1])):
            await look.look()
            assert await rows(keeping, record) == left

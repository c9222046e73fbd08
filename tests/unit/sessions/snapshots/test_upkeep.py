"""What goes by itself, and what does not."""

import asyncio

import msgspec
import pytest
import structlog

from handiwork.model.errors import NotFoundError, SandboxUnavailableError
from handiwork.model.sandbox import SandboxRecord
from handiwork.sessions.sandbox_request import SandboxRequest
from keeping_world import KeepingWorld
from session_world import until


async def box(world: KeepingWorld, count: int) -> SandboxRecord:
    record = await world.sandboxes.create(SandboxRequest())
    files = (await world.sandboxes.use(record.id)).files
    for number in range(count):
        await files.write("/workspace/a", b"%d" % number * 50_000)
        await world.moves.take(record.id)
    return record


async def numbers(world: KeepingWorld, record: SandboxRecord) -> list[int]:
    return await world.shelf.numbers(record.id)


async def test_the_last_few_and_the_pinned_stay(keeping: KeepingWorld) -> None:
    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, keep=2)
    async with keeping:
        record = await box(keeping, 5)
        await keeping.moves.pin(record.id, 2, "good")
        await keeping.background.upkeep(lambda: 0.0).look()
        assert await numbers(keeping, record) == [5, 4, 2]
        assert [one.number for one in await keeping.shelf.all(record.id)] == [5, 4, 2]


async def test_those_of_a_closed_sandbox_go_with_it_but_for_the_pinned(
    keeping: KeepingWorld,
) -> None:
    async with keeping:
        record, other = await box(keeping, 3), await box(keeping, 1)
        await keeping.moves.pin(record.id, 2, "good")
        await keeping.sandboxes.close(record.id)
        await keeping.background.upkeep(lambda: 0.0).look()
        assert await numbers(keeping, record) == [2]
        assert await numbers(keeping, other) == [1]


async def test_those_of_a_closed_sandbox_stay_their_time(keeping: KeepingWorld) -> None:
    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, closed_seconds=3600)
    async with keeping:
        record = await box(keeping, 1)
        await keeping.sandboxes.close(record.id)
        await keeping.background.upkeep(lambda: 0.0).look()
        assert await numbers(keeping, record) == [2, 1]


async def test_a_pack_goes_after_the_grace_when_no_manifest_names_it(keeping: KeepingWorld) -> None:
    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, keep=1, grace_seconds=100)
    time = [0.0]
    async with keeping:
        record = await box(keeping, 3)
        upkeep = keeping.background.upkeep(lambda: time[0])
        before = keeping.packs()
        await upkeep.look()
        time[0] = 99.0
        await upkeep.look()
        assert keeping.packs() == before
        time[0] = 100.0
        await upkeep.look()
        assert len(keeping.packs()) < len(before)
        await keeping.sandboxes.sleep(record.id)
        keeping.lose(record.id)
        await keeping.sandboxes.wake(record.id)
        assert (keeping.driver.root / record.id / "workspace/a").read_bytes() == b"2" * 50_000


async def test_what_came_into_use_again_meanwhile_stays(
    keeping: KeepingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sabotaged by taking the first finding for the truth, this fails: the pack would be gone."""
    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, grace_seconds=0)
    async with keeping:
        record = await box(keeping, 1)
        key = next(key for key in keeping.blobs.kept if "/manifests/" in key)
        manifest = keeping.blobs.kept.pop(key)
        upkeep = keeping.background.upkeep(lambda: 0.0)
        alone = keeping.shelf.alone

        def comes_back():
            keeping.blobs.kept[key] = manifest
            return alone()

        monkeypatch.setattr(keeping.shelf, "alone", comes_back)
        before = keeping.packs()
        await upkeep.collect()
        assert keeping.packs() == before
        assert await numbers(keeping, record) == [1]


async def test_nothing_goes_while_one_is_taken(keeping: KeepingWorld) -> None:
    async with keeping:
        async with keeping.shelf.alone():
            record = await keeping.sandboxes.create(SandboxRequest())
            taking = asyncio.ensure_future(keeping.moves.take(record.id))
            await asyncio.sleep(0.05)
            assert not taking.done()
        assert (await taking).number == 1


async def test_where_one_manifest_cannot_be_read_every_pack_stays(keeping: KeepingWorld) -> None:
    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, keep=1, grace_seconds=0)
    async with keeping:
        record = await box(keeping, 2)
        keeping.damage(next(key for key in keeping.blobs.kept if "/manifests/" in key))
        before = keeping.packs()
        upkeep = keeping.background.upkeep(lambda: 0.0)
        with pytest.raises(SandboxUnavailableError, match="is damaged"):
            await upkeep.collect()
        assert keeping.packs() == before
        with pytest.raises(NotFoundError):
            await keeping.moves.remove(record.id, 7)


async def test_a_sweep_that_ends_in_a_fault_is_told_and_the_next_one_is_made(
    keeping: KeepingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs it runs the whole control plane beside it."""
    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, sweep_seconds=0.01)
    sweeps = 0

    async def fault() -> None:
        nonlocal sweeps
        sweeps += 1
        raise ValueError("'.nfs0001' is no key of a blob")

    async with keeping:
        upkeep = keeping.background.upkeep(lambda: 0.0)
        for step in ("expire_all", "collect"):
            monkeypatch.setattr(upkeep, step, fault)
        with structlog.testing.capture_logs() as logs:
            looking = asyncio.ensure_future(upkeep.run())
            await until(lambda: sweeps >= 4)
            assert not looking.done()
            looking.cancel()
        told = {one["event"] for one in logs if one["log_level"] == "error"}
        assert told == {"snapshots are not expired", "unused packs are not deleted"}


async def test_a_stray_file_among_the_blobs_stops_nothing(keeping: KeepingWorld) -> None:
    keeping.snapshots = msgspec.structs.replace(keeping.snapshots, keep=1, grace_seconds=0)
    async with keeping:
        record = await box(keeping, 2)
        before = keeping.packs()
        for folder in ("manifests", "manifests/" + record.id, "packs"):
            keeping.blobs.kept[f"default/{folder}/.nfs0001"] = b"x"
        await keeping.background.upkeep(lambda: 0.0).look()
        assert await numbers(keeping, record) == [2]
        assert set(before) - set(keeping.packs())


async def test_it_looks_when_a_sandbox_was_closed(keeping: KeepingWorld) -> None:
    async with keeping:
        record = await box(keeping, 1)
        looking = asyncio.ensure_future(keeping.background.upkeep(lambda: 0.0).run())
        await keeping.sandboxes.close(record.id)

        async def gone() -> bool:
            return await numbers(keeping, record) == []

        await until(gone)
        looking.cancel()

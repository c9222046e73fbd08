"""One snapshot: taken or not, made again or not; whoever looks is told."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import msgspec
import pytest

from handiwork.model.errors import (
    ConflictError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import Limits, SandboxRecord, SandboxState
from handiwork.observe.metrics import Census
from handiwork.sessions.sandbox_request import SandboxRequest
from handiwork.sessions.snapshots.shelf import files_of
from host_sandbox import HostDriver
from keeping_world import KeepingWorld
from session_world import clock


async def box(world: KeepingWorld) -> SandboxRecord:
    record = await world.sandboxes.create(SandboxRequest())
    await write(world, record, "a", b"one")
    return record


async def write(world: KeepingWorld, record: SandboxRecord, name: str, data: bytes) -> None:
    sandbox = await world.sandboxes.use(record.id)
    await sandbox.files.write(f"/workspace/{name}", data)


async def test_a_running_one_is_frozen_until_its_tree_is_read_and_no_longer(
    keeping: KeepingWorld,
) -> None:
    async with keeping:
        record = await box(keeping)
        sandbox = keeping.driver.live[record.id]
        seen: list[tuple[str, bool]] = []
        keeping.blobs.fault = lambda verb, _key: seen.append((verb, sandbox.is_frozen))
        taken = await keeping.shelf.take(record, keeping.driver, "request")
        assert (taken.number, taken.reason, taken.image) == (1, "request", "img")
        assert ("list", True) in seen
        assert ("put_if_absent", False) in seen
        assert not sandbox.is_frozen
        status = await keeping.store.snapshots.status(record.id)
        assert (status.number, status.failure) == (1, "")
        assert keeping.shelf.standing() == {"img": [f"the snapshots of {record.id}"]}


async def test_who_moved_meanwhile_leaves_no_generation(
    keeping: KeepingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.asynccontextmanager
    async def moved() -> AsyncIterator[None]:
        yield
        raise SandboxUnavailableError("it woke itself")

    async with keeping:
        record = await box(keeping)
        sandbox = keeping.driver.live[record.id]
        monkeypatch.setattr(sandbox, "frozen", moved)
        with pytest.raises(SandboxUnavailableError, match="it woke itself"):
            await keeping.shelf.take(record, keeping.driver, "request")
        assert await keeping.shelf.numbers(record.id) == []


async def test_one_that_fails_is_told_and_the_former_stays(keeping: KeepingWorld) -> None:
    async with keeping:
        record = await box(keeping)
        first = await keeping.shelf.take(record, keeping.driver, "request")
        await write(keeping, record, "b", b"two")
        keeping.blobs.fail_at(1)
        with pytest.raises(SandboxUnavailableError, match=f"no snapshot of {record.id} was taken"):
            await keeping.shelf.take(record, keeping.driver, "idle")
        keeping.blobs.fault = None
        status = await keeping.store.snapshots.status(record.id)
        assert "refuses to" in status.failure
        assert (status.number, status.failed_at is not None) == (1, True)
        assert await keeping.shelf.all(record.id) == [first]
        told = keeping.metrics.text(Census(), clock())
        assert b'handiwork_snapshots_total{outcome="failed",why="idle"} 1.0' in told


async def test_a_store_that_hangs_holds_up_nobody_who_gives_up(keeping: KeepingWorld) -> None:
    hangs, asked = threading.Event(), threading.Event()

    def hang(verb: str, _key: str) -> None:
        if verb == "put":
            asked.set()
            hangs.wait(30)

    async with keeping:
        record = await box(keeping)
        sandbox = keeping.driver.live[record.id]
        keeping.blobs.fault = hang
        taking = asyncio.ensure_future(keeping.shelf.take(record, keeping.driver, "request"))
        await asyncio.to_thread(asked.wait, 20)
        taking.cancel()
        await asyncio.wait([taking], timeout=20)
        assert taking.cancelled()
        assert not sandbox.is_frozen
        keeping.blobs.fault = None
        hangs.set()
        assert await keeping.shelf.numbers(record.id) == []
        assert (await keeping.store.snapshots.status(record.id)).failure == "it was interrupted"


async def test_a_damaged_one_is_passed_over_aloud_a_store_that_is_away_is_not(
    keeping: KeepingWorld,
) -> None:
    async with keeping:
        record = await box(keeping)
        await keeping.shelf.take(record, keeping.driver, "request")
        (old,) = keeping.packs()
        await write(keeping, record, "a", b"two")
        await keeping.shelf.take(record, keeping.driver, "request")
        await keeping.sandboxes.sleep(record.id)
        (newer,) = set(keeping.packs()) - {old}
        keeping.damage(newer)
        keeping.lose(record.id)
        made = await keeping.shelf.make(record.id, [2, 1], record, keeping.driver)
        assert made.snapshot.number == 1
        assert newer.rpartition("/")[2] in made.damaged[0]
        assert (keeping.driver.root / record.id / "workspace/a").read_bytes() == b"one"

        keeping.lose(record.id)
        keeping.blobs.fail_at(0)
        with pytest.raises(SandboxUnavailableError, match="could not be restored"):
            await keeping.shelf.make(record.id, [2, 1], record, keeping.driver)
        keeping.blobs.fault = None
        keeping.damage(old)
        with pytest.raises(SandboxUnavailableError, match="can be restored: chunk"):
            await keeping.shelf.make(record.id, [2, 1], record, keeping.driver)
        assert not (keeping.driver.root / record.id).exists()


async def test_what_is_more_than_a_sandbox_may_have_is_not_made(keeping: KeepingWorld) -> None:
    """However few chunks it is made of: where it is made first no limit may hold."""
    async with keeping:
        record = await box(keeping)
        await write(keeping, record, "zeros", bytes(3 << 20))
        taken = await keeping.shelf.take(record, keeping.driver, "request")
        assert taken.new_bytes < 1 << 20
        await keeping.sandboxes.sleep(record.id)
        small = msgspec.structs.replace(record, limits=Limits(disk_mib=2))
        made = keeping.driver.made
        with pytest.raises(SandboxUnavailableError, match="larger than 2 MiB"):
            await keeping.shelf.make(record.id, [1], small, keeping.driver)
        assert keeping.driver.made == made


async def test_what_a_session_brought_along_is_left_out(keeping: KeepingWorld) -> None:
    async with keeping:
        record = await box(keeping)
        await keeping.sandboxes.claim(record.id, "/workspace/skills/pdf")
        await keeping.sandboxes.claim(record.id, "/workspace/skills/pdf")
        await write(keeping, record, "skills/pdf/SKILL.md", b"theirs")
        await write(keeping, record, "skills/own", b"the agent's")
        await keeping.moves.take(record.id)
        await keeping.sandboxes.sleep(record.id)
        keeping.lose(record.id)
        await keeping.sandboxes.wake(record.id)
        root = keeping.driver.root / record.id / "workspace/skills"
        assert [one.name for one in root.iterdir()] == ["own"]


def test_a_tier_that_cannot_says_so_by_its_name(keeping: KeepingWorld, tmp_path) -> None:
    record = SandboxRecord(
        id="sbx_aaaaaaaa",
        tier="microvm",
        image="i",
        state=SandboxState.RUNNING,
        created_at=clock(),
        updated_at=clock(),
    )
    with pytest.raises(UnsupportedError, match="'microvm' has no snapshots"):
        files_of(record, HostDriver(tmp_path))


async def test_forgetting_one_forgets_its_manifest(keeping: KeepingWorld) -> None:
    async with keeping:
        record = await box(keeping)
        await keeping.shelf.take(record, keeping.driver, "request")
        await keeping.shelf.forget(record.id, 1)
        assert await keeping.shelf.numbers(record.id) == []
        assert await keeping.shelf.all(record.id) == []
        assert keeping.shelf.standing() == {}
        with pytest.raises(NotFoundError):
            await keeping.shelf.work(lambda generations: generations.load(record.id, 1))


async def test_one_that_cannot_be_deleted_stays_told_and_goes_the_next_time(
    keeping: KeepingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store fails, then the database: what is kept is told all the time, and nothing stays behind."""

    def away(verb: str, key: str) -> None:
        if verb == "delete":
            raise SandboxUnavailableError(f"refuses to {verb} {key}")

    async def refuse(_sandbox_id: str, _number: int) -> None:
        raise SandboxUnavailableError("the database is full")

    async with keeping:
        record = await box(keeping)
        taken = await keeping.shelf.take(record, keeping.driver, "request")
        keeping.blobs.fault = away
        with pytest.raises(SandboxUnavailableError, match="refuses to delete"):
            await keeping.shelf.forget(record.id, 1)
        keeping.blobs.fault = None
        assert await keeping.shelf.all(record.id) == [taken]
        assert await keeping.shelf.numbers(record.id) == [1]
        assert keeping.shelf.standing() == {"img": [f"the snapshots of {record.id}"]}
        with monkeypatch.context() as broken:
            broken.setattr(keeping.store.snapshots, "remove", refuse)
            with pytest.raises(SandboxUnavailableError, match="the database is full"):
                await keeping.shelf.forget(record.id, 1)
        assert await keeping.shelf.all(record.id) == [taken]
        assert await keeping.shelf.numbers(record.id) == []
        await keeping.shelf.forget(record.id, 1)
        assert await keeping.shelf.all(record.id) == []


async def test_what_is_pinned_is_not_deleted_and_what_is_deleted_not_pinned(
    keeping: KeepingWorld,
) -> None:
    asked, hangs = threading.Event(), threading.Event()

    def hang(verb: str, _key: str) -> None:
        if verb == "delete":
            asked.set()
            hangs.wait(30)

    async with keeping:
        record = await box(keeping)
        for _ in range(2):
            await keeping.shelf.take(record, keeping.driver, "request")
        await keeping.shelf.pin(record.id, "good", 2)
        with pytest.raises(ConflictError, match="is pinned as 'good'"):
            await keeping.shelf.forget(record.id, 2)
        keeping.blobs.fault = hang
        going = asyncio.ensure_future(keeping.shelf.forget(record.id, 1))
        await asyncio.to_thread(asked.wait, 20)
        with pytest.raises(ConflictError, match="is being deleted"):
            await keeping.shelf.pin(record.id, "late", 1)
        await keeping.shelf.pin(record.id, "also", 2)
        hangs.set()
        await going
        assert [one.number for one in await keeping.shelf.all(record.id)] == [2]
        assert await keeping.shelf.numbers(record.id) == [2]

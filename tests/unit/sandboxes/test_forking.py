"""More of one sandbox: whole or not at all, with ids of its own, and no more layers than are good."""

import asyncio
import contextlib
import os
import threading
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from handiwork.model.errors import (
    ConflictError,
    NotFoundError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.sandboxes import disks, forking
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.forking import Forking
from handiwork.sandboxes.layers import DEPTH
from handiwork.sandboxes.marks import BOOT, UNFLUSHED
from handiwork.sandboxes.states import Staged, States
from handiwork.sandboxes.unflushed import Unflushed

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ONE, TWO, THREE = (f"sbx_{name}aaaaaaaa" for name in ("one", "two", "three"))
BLANK = bytes(4096)


@pytest.fixture(autouse=True)
def devices(monkeypatch):
    """No disk is mounted here: what would be put on a device is counted."""
    attached = []

    def attach(path):
        attached.append(path.name)
        return os.open(os.devnull, os.O_RDONLY), os.devnull

    monkeypatch.setattr(disks, "attach", attach)
    return attached


@pytest.fixture
def states(tmp_path):
    return opened(tmp_path)


def opened(tmp_path):
    return States(tmp_path / "sandboxes", ranged=os.geteuid() == 0, first_id=1 << 30)


def write(states, sandbox_id, content=b"files"):
    """Give a state a disk: nobody mounts it here."""
    states.disk(sandbox_id).write_bytes(BLANK + content)


def made(states, sandbox_id=ONE):
    meta = states.make(sandbox_id, "img", NOW)
    write(states, sandbox_id)
    meta = msgspec.structs.replace(meta, on_disk=True)
    states.save(meta)
    return meta


def fork(states, source, target):
    copying = Copying()
    unflushed = Unflushed(states, copying)
    return Forking(
        states=states,
        source=source,
        target=target,
        now=NOW,
        copying=copying,
        unflushed=unflushed,
    )


def layers(tmp_path):
    return sorted(path.name for path in (tmp_path / "layers").iterdir())


async def test_one_that_sleeps_shares_its_disk_from_now_on(states, tmp_path):
    before = made(states)
    await fork(states, ONE, TWO).run(None)
    for again in (states, opened(tmp_path)):
        one, two = again.load(ONE, ""), again.load(TWO, "")
        assert one.layers == two.layers == (f"{ONE}-0",)
        assert one.owner_base == two.owner_base == before.id_base
        assert (one.id_base == two.id_base) == (os.geteuid() != 0)
        assert not states.disk(ONE).exists()
        assert not states.disk(TWO).exists()
    assert (tmp_path / f"layers/{ONE}-0.img").read_bytes() == BLANK + b"files"


async def test_what_wrote_nothing_since_shares_the_same_layer(states, tmp_path):
    made(states)
    await fork(states, ONE, TWO).run(None)
    await fork(states, TWO, THREE).run(None)
    assert states.load(THREE, "").layers == (f"{ONE}-0",)
    assert layers(tmp_path) == [f"{ONE}-0.img"]


async def test_a_stack_grows_no_deeper_than_it_may(states, tmp_path):
    made(states)
    for number in range(DEPTH + 2):
        await fork(states, ONE, f"sbx_child{number:08}").run(None)
        write(states, ONE, b"%d" % number)
    deep = states.load(ONE, "").layers
    assert len(deep) == DEPTH
    last = f"sbx_child{DEPTH + 1:08}"
    assert states.load(last, "").layers == deep
    assert states.disk(last).read_bytes() == BLANK + b"%d" % DEPTH  # a copy of what lies above


async def test_one_that_runs_is_still_while_its_disk_is_copied(states, devices, monkeypatch):
    made(states)
    order = []

    class Running:
        class stack:
            disk = 7

        @asynccontextmanager
        async def still(self):
            order.append("still")
            yield
            order.append("moves")

    def copy(mount, source, target, stop):
        order.append("copied")
        assert (mount, source) == (7, states.disk(ONE))
        assert devices == [
            "disk.img"
        ]  # before it is held still, and before there is anything in it
        assert target.stat().st_size == source.stat().st_size
        target.write_bytes(source.read_bytes())

    monkeypatch.setattr(forking, "copy_still", copy)
    await fork(states, ONE, TWO).run(Running())
    assert order == ["still", "copied", "moves"]
    assert states.load(ONE, "").layers == states.load(TWO, "").layers == ()
    assert states.load(TWO, "").on_disk
    assert states.disk(TWO).exists()


async def test_one_that_moved_after_all_leaves_no_fork(states, tmp_path, monkeypatch):
    made(states)

    class Running:
        class stack:
            disk = 7

        @asynccontextmanager
        async def still(self):
            yield
            raise SandboxUnavailableError("it moved")

    monkeypatch.setattr(forking, "copy_still", lambda *_: None)
    with pytest.raises(SandboxUnavailableError, match="it moved"):
        await fork(states, ONE, TWO).run(Running())
    assert [path.name for path in (tmp_path / "sandboxes").iterdir()] == [ONE]


async def test_what_cannot_be_forked_is_told(states):
    made(states)
    with pytest.raises(NotFoundError):
        await fork(states, TWO, THREE).run(None)
    with pytest.raises(ConflictError, match="has state"):
        await fork(states, ONE, ONE).run(None)
    states.make(TWO, "img", NOW)
    with pytest.raises(UnsupportedError, match="not on a disk"):
        await fork(states, TWO, THREE).run(None)
    states.save(msgspec.structs.replace(states.load(ONE, ""), image=""))
    with pytest.raises(SandboxUnavailableError, match="what image"):
        await fork(states, ONE, THREE).run(None)
    assert states.ids() == sorted([ONE, TWO])


STEPS = ("link", "fsync", "rename", "unlink")


@pytest.mark.parametrize("step", STEPS)
async def test_a_crash_between_the_steps_loses_nothing_and_leaves_nothing(
    states, tmp_path, monkeypatch, step
):
    """As after kill -9: what was done is there, what was to follow is not."""
    made(states)
    monkeypatch.setattr(forking, "make_clean", lambda _: None)

    class Killed(BaseException):
        pass

    def die(*_args, **_options):
        raise Killed

    place = {"link": os, "fsync": os, "rename": type(tmp_path), "unlink": type(tmp_path)}[step]
    meta = states.load(ONE, "")
    with monkeypatch.context() as killed:
        killed.setattr(type(tmp_path), "unlink", die)  # nobody cleans up after a kill
        if step != "unlink":
            killed.setattr(place, step, die)
        with pytest.raises(Killed):
            states.share(meta)
    again = opened(tmp_path)
    meta = again.load(ONE, "")
    found = tmp_path / f"layers/{ONE}-0.img" if meta.layers else again.disk(ONE)
    assert found.read_bytes() == BLANK + b"files"
    assert bool(meta.layers) == (step == "unlink")
    assert again.disk(ONE).exists() == (not meta.layers)
    assert layers(tmp_path) == ([f"{ONE}-0.img"] if meta.layers else [])
    await fork(again, ONE, TWO).run(None)
    assert again.load(TWO, "").layers == (f"{ONE}-0",)


async def test_a_layer_goes_with_the_last_that_stands_on_it(states, tmp_path):
    made(states)
    await fork(states, ONE, TWO).run(None)
    assert states.forget(ONE) is not None
    states.sweep_layers()
    assert layers(tmp_path) == [f"{ONE}-0.img"]
    assert states.load(TWO, "").layers == (f"{ONE}-0",)
    assert states.forget(TWO) is not None
    states.sweep_layers()
    assert layers(tmp_path) == []


async def test_nothing_is_deleted_while_a_meta_file_cannot_be_read(states, tmp_path):
    made(states)
    await fork(states, ONE, TWO).run(None)
    for one in (ONE, TWO):
        (states.path(one) / "meta.json").write_bytes(b"{")
    opened(tmp_path)
    assert layers(tmp_path) == [f"{ONE}-0.img"]


async def test_a_lost_layer_is_a_lost_state(states, tmp_path):
    made(states)
    await fork(states, ONE, TWO).run(None)
    (tmp_path / f"layers/{ONE}-0.img").unlink()
    with pytest.raises(NotFoundError, match="the layer"):
        states.load(TWO, "")


async def test_who_is_left_alone_has_the_disk_again(states, tmp_path):
    made(states)
    await fork(states, ONE, TWO).run(None)
    one = states.load(ONE, "")
    assert states.is_shared(one)
    assert not states.unshare(one)
    states.forget(TWO)
    assert states.unshare(one)
    again = opened(tmp_path)
    assert again.load(ONE, "").layers == ()
    assert again.disk(ONE).read_bytes() == BLANK + b"files"
    assert layers(tmp_path) == []


async def test_what_becomes_a_layer_is_not_swept(states, tmp_path, monkeypatch):
    """Another sandbox may be deleted at that moment, in another thread."""
    made(states)
    save, swept = states.save, threading.Event()

    def save_later(meta, **options):
        states.sweep_layers()
        swept.set()
        save(meta, **options)

    monkeypatch.setattr(states, "save", save_later)
    await fork(states, ONE, TWO).run(None)
    assert swept.is_set()
    assert layers(tmp_path) == [f"{ONE}-0.img"]


async def test_a_copy_counts_in_this_boot_alone_until_it_is_flushed(states, tmp_path, monkeypatch):
    """As after a power cut: what was not written out is told as lost, and never taken for whole."""
    made(states)
    monkeypatch.setattr(forking, "DEPTH", 0)
    await fork(states, ONE, TWO).run(None)
    assert states.load(TWO, "").on_disk
    with monkeypatch.context() as later:
        boot = tmp_path / "boot"
        boot.write_text("another")
        later.setattr("handiwork.sandboxes.marks.BOOT", boot)
        with pytest.raises(NotFoundError, match="not whole"):
            opened(tmp_path).load(TWO, "")
        assert opened(tmp_path).load(ONE, "").id == ONE
    states.flush(ONE)
    (states.path(ONE) / UNFLUSHED).write_text("another")
    states.flush(ONE)  # as after the sleep of one that ran when the host went down
    with pytest.raises(NotFoundError, match="not whole"):
        states.load(ONE, "")
    assert (states.path(TWO) / UNFLUSHED).exists()
    again = opened(tmp_path)  # killed, but the host did not go down: it is flushed now
    assert not (again.path(TWO) / UNFLUSHED).exists()
    again.flush(TWO)
    with monkeypatch.context() as later:
        later.setattr("handiwork.sandboxes.marks.BOOT", tmp_path / "boot")
        assert opened(tmp_path).load(TWO, "").on_disk


def test_a_flush_is_durable_itself(states, monkeypatch):
    """Else a power cut brings the mark back, and with it a disk that counts as lost."""
    made(states)
    mark = states.path(ONE) / UNFLUSHED
    mark.write_bytes(BOOT.read_bytes())
    order = []

    def fsync(file):
        order.append((Path(f"/proc/self/fd/{file}").readlink(), mark.exists()))

    monkeypatch.setattr("handiwork.sandboxes.marks.os.fsync", fsync)
    states.flush(ONE)
    assert order == [(states.disk(ONE), True), (states.path(ONE), False)]


def test_a_flush_that_fails_stops_no_start(states, tmp_path, monkeypatch):
    def fail(path):
        raise OSError(12, "Cannot allocate memory")

    made(states)
    mark = states.path(ONE) / UNFLUSHED
    mark.write_bytes(BOOT.read_bytes())
    with monkeypatch.context() as broken:
        broken.setattr("handiwork.sandboxes.marks.os.fsync", fail)
        again = opened(tmp_path)
    assert mark.exists()
    assert again.load(ONE, "").on_disk
    again.flush(ONE)
    assert again.is_flushed(ONE)


def place(states, sandbox_id, layers):
    """Install a state that stands on layers, as a fork is."""
    staged = states.stage(sandbox_id, "img", NOW)
    (staged.path / "upper").mkdir()
    states.install(Staged(staged.path, msgspec.structs.replace(staged.meta, layers=layers)))


def replaced_meanwhile(states, monkeypatch, old, new):
    """When the meta file of `old` is about to be read, have its layers taken over by `new`."""
    path, layers = states.path, states.load(old, "").layers

    def hooked(sandbox_id):
        if sandbox_id == old:
            monkeypatch.undo()
            place(states, new, layers)
            assert states.forget(old) is not None
        return path(sandbox_id)

    monkeypatch.setattr(states, "path", hooked)


async def test_no_layer_is_swept_of_a_fork_that_came_meanwhile(states, tmp_path, monkeypatch):
    made(states)
    await fork(states, ONE, THREE).run(None)
    states.forget(THREE)
    replaced_meanwhile(states, monkeypatch, ONE, TWO)
    states.sweep_layers()
    assert states.load(TWO, "").layers == (f"{ONE}-0",)  # it is there: else this raises
    states.sweep_layers()
    assert layers(tmp_path) == [f"{ONE}-0.img"]


async def test_who_may_be_shared_with_is_not_alone(states, monkeypatch):
    made(states)
    await fork(states, ONE, TWO).run(None)
    one = states.load(ONE, "")
    replaced_meanwhile(states, monkeypatch, TWO, THREE)
    assert states.is_shared(one)
    (states.path(THREE) / "meta.json").write_bytes(b"{")
    assert states.is_shared(one)
    assert not states.unshare(one)
    states.forget(THREE)
    assert not states.is_shared(one)


async def test_no_reading_takes_a_disk_away(states, tmp_path):
    """It lies under both names for a moment while it is shared, or is its own again."""
    made(states)
    await fork(states, ONE, TWO).run(None)
    os.link(tmp_path / f"layers/{ONE}-0.img", states.disk(ONE))
    with pytest.raises(SandboxUnavailableError, match="is being shared"):
        states.load(ONE, "")
    assert states.disk(ONE).exists()
    assert opened(tmp_path).load(ONE, "").layers == (f"{ONE}-0",)  # a crash is mended at a start
    assert not states.disk(ONE).exists()


async def test_what_cannot_be_unshared_is_as_it_was(states, monkeypatch):
    def fail(meta, **options):
        raise OSError(28, "No space left on device")

    made(states)
    await fork(states, ONE, TWO).run(None)
    states.forget(TWO)
    one = states.load(ONE, "")
    with monkeypatch.context() as full:
        full.setattr(states, "save", fail)
        with pytest.raises(OSError, match="No space"):
            states.unshare(one)
    assert states.load(ONE, "") == one


async def test_nobody_is_still_while_there_is_no_place_to_copy(states, monkeypatch):
    made(states)
    order = []

    class Running:
        class stack:
            disk = 7

        @asynccontextmanager
        async def still(self):
            order.append("still")
            yield

    monkeypatch.setattr(forking, "copy_still", lambda *_: order.append("copied"))
    one = fork(states, ONE, TWO)
    async with one.copying.place(), one.copying.place():
        task = asyncio.create_task(one.run(Running()))
        await asyncio.sleep(0.05)
        assert order == []
    with contextlib.suppress(SandboxUnavailableError):  # nothing was copied
        await task
    assert order == ["still", "copied"]

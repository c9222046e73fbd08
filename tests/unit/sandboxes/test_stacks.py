"""A sandbox's own disk over what it shares: begun once, with the room that is left."""

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from handiwork.model.errors import NotFoundError, SandboxUnavailableError
from handiwork.sandboxes import disks
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.disks import Disks, make_clean
from handiwork.sandboxes.layers import Layers
from handiwork.sandboxes.stacks import ROOM_BYTES, Stacks
from handiwork.sandboxes.states import Meta, States, disk_of
from handiwork.sandboxes.unflushed import Unflushed

MIB = 128
BASE = 1 << 30
META = Meta(id="sbx_aaaaaaaa", id_base=BASE, image="img", created=datetime(2026, 1, 2, tzinfo=UTC))
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() == 0 and not disks.can_limit_disks(),
        reason="needs loop devices, mkfs.ext4 and Linux 6.15",
    ),
]


def open_count() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


def names(directory: int) -> list[str]:
    with os.scandir(directory) as found:
        return sorted(one.name for one in found)


@pytest.fixture
def stacks(tmp_path):
    (tmp_path / "layers").mkdir()
    return Stacks(
        Disks(tmp_path / "disks", ready=0), Layers(tmp_path / "layers"), unflushed(tmp_path)
    )


def unflushed(tmp_path):
    place = tmp_path / "host" / "sandboxes"
    return Unflushed(States(place, ranged=True, first_id=BASE), Copying())


def fill(upper: int, name: str, mib: int) -> None:
    file = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=upper)
    for _ in range(mib):
        os.write(file, os.urandom(1 << 20))
    os.close(file)


async def layer(stacks, tmp_path, mib, meta=META, name="one"):
    """Make a state's disk, with so much in it, a layer; return what is known of who stands on it."""
    state = tmp_path / f"of-{name}"
    state.mkdir()
    on = stacks.open if meta.layers else stacks.create
    stack = await on(meta, state, MIB)
    upper = os.open("upper", os.O_RDONLY, dir_fd=stack.disk)
    os.fchmod(upper, 0o711)
    fill(upper, name, mib)
    os.close(upper)
    stack.close()
    make_clean(disk_of(state))
    disk_of(state).rename(tmp_path / f"layers/{name}.img")
    return msgspec.structs.replace(meta, layers=(name, *meta.layers), disk_base=BASE)


def room(stack) -> int:
    facts = os.fstatvfs(stack.disk)
    return facts.f_bavail * facts.f_frsize


async def test_layers_and_disk_together_are_no_more_than_the_limit(stacks, tmp_path):
    (tmp_path / "new").mkdir()
    empty = await stacks.create(META, tmp_path / "new", MIB)
    most = room(empty)
    empty.close()
    meta = await layer(stacks, tmp_path, 30)
    meta = await layer(stacks, tmp_path, 20, meta, "two")
    disk_of(tmp_path / "new").unlink()
    for _ in range(2):  # the second time it is there
        stack = await stacks.open(meta, tmp_path / "new", MIB)
        assert most - (53 << 20) < room(stack) <= most - (50 << 20)
        assert os.stat("upper", dir_fd=stack.disk).st_mode & 0o777 == 0o711
        assert {os.stat(name, dir_fd=stack.disk).st_uid for name in ("upper", "work")} == {BASE}
        stack.close()


async def test_a_full_layer_leaves_a_little_room(stacks, tmp_path):
    (tmp_path / "new").mkdir()
    meta = await layer(stacks, tmp_path, 100)
    state = tmp_path / "new"
    stack = await stacks.open(meta, state, 64)
    assert 0 < room(stack) <= ROOM_BYTES
    stack.close()


async def test_uppers_are_read_topmost_first_running_or_not(stacks, tmp_path):
    (tmp_path / "new").mkdir()
    meta = await layer(stacks, tmp_path, 1)
    async with stacks.read(meta, tmp_path / "new", None) as found:
        assert [names(one) for one in found] == [["one"]]
    stack = await stacks.open(meta, tmp_path / "new", MIB)
    for running in (stack, None):
        async with stacks.read(meta, tmp_path / "new", running) as found:
            assert [names(one) for one in found] == [[], ["one"]]
        stack.close()
    with pytest.raises(NotFoundError):
        async with stacks.read(META, tmp_path / "nothing", None):
            pass


async def test_layers_without_disks_are_refused(stacks, tmp_path):
    (tmp_path / "new").mkdir()
    meta = await layer(stacks, tmp_path, 1)
    without = Stacks(None, Layers(tmp_path / "layers"), unflushed(tmp_path))
    with pytest.raises(SandboxUnavailableError, match="needs a disk of its own"):
        await without.open(meta, tmp_path / "new", MIB)


@pytest.mark.parametrize("gone", [("upper", "work"), ("work",)])
@pytest.mark.parametrize("layered", [True, False])
async def test_a_disk_that_a_crash_left_without_its_uppers_gets_them(
    stacks, tmp_path, gone, layered
):
    (tmp_path / "new").mkdir()
    meta = await layer(stacks, tmp_path, 1) if layered else META
    stack = await stacks.open(meta, tmp_path / "new", MIB) if layered else None
    stack = stack or await stacks.create(meta, tmp_path / "new", MIB)
    for name in gone:
        os.rmdir(name, dir_fd=stack.disk)
    if "upper" not in gone:
        os.chown("upper", 0, 0, dir_fd=stack.disk)
    stack.close()
    stack = await stacks.open(meta, tmp_path / "new", MIB)
    assert {os.stat(name, dir_fd=stack.disk).st_uid for name in ("upper", "work")} == {BASE}
    assert os.stat("upper", dir_fd=stack.disk).st_mode & 0o777 == (0o711 if layered else 0o755)
    stack.close()


async def test_each_of_its_devices_is_named(stacks, tmp_path):
    (tmp_path / "new").mkdir()
    meta = await layer(stacks, tmp_path, 1)
    stack = await stacks.open(meta, tmp_path / "new", MIB)
    devices = stack.devices()
    assert len({*devices}) == 2
    number = os.fstat(stack.disk).st_dev
    assert devices[0] == f"{os.major(number)}:{os.minor(number)}"
    stack.close()


async def test_what_cannot_be_opened_for_a_reader_leaves_nothing_open(
    stacks, tmp_path, monkeypatch
):
    (tmp_path / "new").mkdir()
    meta = await layer(stacks, tmp_path, 1)
    meta = await layer(stacks, tmp_path, 1, meta, "two")
    stack = await stacks.open(meta, tmp_path / "new", MIB)
    before, dup, calls = open_count(), os.dup, []

    def fails_next(descriptor):
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(24, "Too many open files")
        return dup(descriptor)

    with monkeypatch.context() as few:
        few.setattr(os, "dup", fails_next)
        with pytest.raises(OSError, match="Too many"):
            async with stacks.read(meta, tmp_path / "new", stack):
                pass
    assert open_count() == before
    stack.close()

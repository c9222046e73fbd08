"""Disks in use before they lie on the host's: fast, and never said to be flushed before they are."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import structlog

from handiwork.model.errors import NotFoundError, SandboxUnavailableError
from handiwork.sandboxes import disk_files, disks
from handiwork.sandboxes.copying import Copying
from handiwork.sandboxes.disk_files import copy_file, copy_still
from handiwork.sandboxes.disks import Disks, mount_disk
from handiwork.sandboxes.marks import BOOT, UNFLUSHED, Mark
from handiwork.sandboxes.states import States
from handiwork.sandboxes.unflushed import Unflushed

ONE = "sbx_aaaaaaaa"
MIB = 128
CONTENT = os.urandom(1 << 20)
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() == 0 and not disks.can_limit_disks(),
        reason="needs loop devices, mkfs.ext4 and Linux 6.15",
    ),
]


@pytest.fixture
def states(tmp_path: Path) -> States:
    return States(tmp_path / "sandboxes", ranged=True, first_id=1 << 30)


@pytest.fixture
async def source(tmp_path: Path) -> AsyncIterator[int]:
    """The mount of a disk with a file on it."""
    mount = await Disks(tmp_path / "disks", ready=0).take(tmp_path / "source.img", MIB)
    write(mount, "file", CONTENT)
    yield mount
    os.close(mount)


@pytest.fixture
def unflushed(states: States) -> Unflushed:
    return Unflushed(states, Copying())


@pytest.fixture
def copy(unflushed: Unflushed, states: States, source: int, tmp_path: Path) -> Path:
    """The disk of a state that was just copied."""
    meta = msgspec.structs.replace(states.make(ONE, "img", datetime.now(UTC)), on_disk=True)
    states.save(meta)
    (states.path(ONE) / UNFLUSHED).write_bytes(BOOT.read_bytes())
    original, disk = tmp_path / "source.img", states.disk(ONE)
    unflushed.attach(ONE, disk, original.stat().st_size)
    look_at(disk)
    copy_still(source, original, disk, threading.Event())
    return disk


def look_at(disk: Path) -> None:
    """Read a device as whatever watches for new ones does, while somebody has it."""
    (device,) = devices_of(disk)
    file = os.open(device, os.O_RDONLY)
    assert os.pread(file, 4 << 20, 0) == bytes(4 << 20)
    os.close(file)


def devices_of(disk: Path) -> list[Path]:
    """Return the loop devices that a file is on."""
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return [Path("/dev") / one.parts[3] for one in backing if one.read_text().strip() == str(disk)]


def write(mount: int, name: str, content: bytes) -> None:
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=mount)
    os.write(file, content)
    os.close(file)


def read(mount: int, name: str) -> bytes:
    file = os.open(name, os.O_RDONLY, dir_fd=mount)
    try:
        return os.read(file, len(CONTENT) + 1)
    finally:
        os.close(file)


def has_barriers(mount: int) -> bool:
    number = os.minor(os.fstat(mount).st_dev)
    options = Path(f"/proc/fs/ext4/loop{number}/options").read_text().split()
    assert ("barrier" in options) != ("nobarrier" in options)
    return "barrier" in options


def test_one_in_use_waits_for_nothing_until_all_of_it_is_flushed(
    unflushed: Unflushed, states: States, copy: Path
) -> None:
    mount = unflushed.mount(ONE, copy)
    ended = unflushed.use(ONE, mount)
    try:
        assert read(mount, "file") == CONTENT
        assert not has_barriers(mount)
        write(mount, "other", b"meanwhile")
        unflushed.flush(ONE)
        assert has_barriers(mount)
        assert states.is_flushed(ONE)
        assert (read(mount, "file"), read(mount, "other")) == (CONTENT, b"meanwhile")
    finally:
        os.close(mount)
        ended()
    again = mount_disk(copy)  # nothing holds the device
    assert read(again, "other") == b"meanwhile"
    assert has_barriers(again)
    os.close(again)


def test_one_that_cannot_be_made_safe_is_not_said_to_be_flushed(
    unflushed: Unflushed, states: States, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_mount: int) -> None:
        raise OSError(12, "Cannot allocate memory")

    mount = unflushed.mount(ONE, copy)
    ended = unflushed.use(ONE, mount)
    with monkeypatch.context() as broken:
        broken.setattr(disks, "set_barriers", fail)
        with pytest.raises(OSError, match="allocate"):
            unflushed.flush(ONE)
    assert not states.is_flushed(ONE)
    unflushed.flush(ONE)
    assert states.is_flushed(ONE)
    assert has_barriers(mount)
    os.close(mount)
    ended()


def test_one_that_ended_and_is_used_yet_by_who_dies_is_not_said_to_be_flushed(
    unflushed: Unflushed, states: States, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it writes as its last mount goes may not be on the host's disk."""
    mount = unflushed.mount(ONE, copy)
    dying = os.dup(mount)
    ended = unflushed.use(ONE, mount)

    def end(_mark: Mark) -> None:
        ended()
        os.close(mount)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("handiwork.sandboxes.unflushed.RELEASE_SECONDS", 0.1)
        meanwhile.setattr(Mark, "write_out", end)
        with pytest.raises(OSError, match="is in use"):
            unflushed.flush(ONE)
    assert not states.is_flushed(ONE)
    with monkeypatch.context() as killed:  # the next start leaves it as it is, too
        killed.setattr(disk_files, "RELEASE_SECONDS", 0.1)
        again = States(states.path(ONE).parent, ranged=True, first_id=1 << 30)
    assert not again.is_flushed(ONE)
    os.close(dying)
    unflushed.flush(ONE)
    assert states.is_flushed(ONE)


def test_one_that_nobody_used_is_flushed_and_has_its_device_no_more(
    unflushed: Unflushed, states: States, copy: Path
) -> None:
    assert len(devices_of(copy)) == 1
    unflushed.flush(ONE)
    assert states.is_flushed(ONE)
    mount = unflushed.mount(ONE, copy)
    assert has_barriers(mount)
    unflushed.use(ONE, mount)()
    os.close(mount)


def test_what_was_put_in_its_place_is_what_is_mounted(
    unflushed: Unflushed, copy: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.img"
    copy_file(tmp_path / "source.img", other)
    mount = mount_disk(other)
    write(mount, "file", b"another")
    os.close(mount)
    other.rename(copy)
    mount = unflushed.mount(ONE, copy)
    assert read(mount, "file") == b"another"
    os.close(mount)


def test_one_that_cannot_be_mounted_so_is_mounted_as_any_other(
    unflushed: Unflushed, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mount_device = disks.mount_device

    def fail(device: str, **options: bool) -> int:
        if not options.get("barriers", True):
            raise OSError(22, "Invalid argument")
        return mount_device(device, **options)

    monkeypatch.setattr(disks, "mount_device", fail)
    mount = unflushed.mount(ONE, copy)
    assert read(mount, "file") == CONTENT
    assert has_barriers(mount)
    os.close(mount)


@pytest.mark.parametrize("verb", ["let_go", "leave", "close"])
def test_what_waits_is_let_go(unflushed: Unflushed, states: States, copy: Path, verb: str) -> None:
    for _ in range(2):
        getattr(unflushed, verb)(*([] if verb == "close" else [ONE]))
    os.close(mount_disk(copy))  # waits until nobody has it
    assert not states.is_flushed(ONE)


def test_who_wants_a_disk_waits_for_the_flush_that_holds_it(
    unflushed: Unflushed, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, order = threading.Event(), threading.Event(), []

    def set_barriers(mount: int) -> None:
        begun.set()
        assert go_on.wait(20)
        order.append("flushed")
        set_them(mount)

    set_them = disks.set_barriers
    monkeypatch.setattr(disks, "set_barriers", set_barriers)
    mount = unflushed.mount(ONE, copy)
    ended = unflushed.use(ONE, mount)
    flushing = threading.Thread(target=unflushed.flush, args=(ONE,))
    flushing.start()
    assert begun.wait(20)
    os.close(mount)
    ended()

    def leave() -> None:
        unflushed.leave(ONE)
        order.append("left")

    leaving = threading.Thread(target=leave)
    leaving.start()
    leaving.join(0.2)
    assert order == []
    go_on.set()
    for thread in (flushing, leaving):
        thread.join(20)
    assert order == ["flushed", "left"]
    os.close(mount_disk(copy))


def test_a_disk_that_is_none_is_told(unflushed: Unflushed, copy: Path) -> None:
    with copy.open("r+b") as file:
        file.write(bytes(1 << 20))
    with pytest.raises(SandboxUnavailableError, match="could not be mounted"):
        unflushed.mount(ONE, copy)
    unflushed.flush(ONE)


def test_one_that_is_gone_is_nobodys_to_flush(
    unflushed: Unflushed, states: States, copy: Path
) -> None:
    copy.unlink()
    unflushed.flush(ONE)
    (states.path(ONE) / UNFLUSHED).unlink()
    unflushed.flush(ONE)
    unflushed.let_go(ONE)
    unflushed.flush("sbx_nobody00")


async def test_what_fails_beside_is_told_and_tried_again(
    unflushed: Unflushed, states: States, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_mount: int) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("handiwork.sandboxes.unflushed.AGAIN_SECONDS", (0.01, 0.2))
    mount = unflushed.mount(ONE, copy)
    ended = unflushed.use(ONE, mount)
    with structlog.testing.capture_logs() as told, monkeypatch.context() as broken:
        broken.setattr(disks, "set_barriers", fail)
        unflushed.flush_later(ONE, ONE, "sbx_nobody00")
        async with asyncio.timeout(20):
            while len(told) < 3:  # noqa: ASYNC110  a line of the log
                await asyncio.sleep(0.01)
    assert {(one["sandbox"], "Too many" in one["reason"]) for one in told} == {(ONE, True)}
    async with asyncio.timeout(20):
        while not states.is_flushed(ONE):  # noqa: ASYNC110  a file
            await asyncio.sleep(0.01)
    assert has_barriers(mount)
    os.close(mount)
    ended()


@pytest.mark.parametrize("way", ["flush", "mount"])
def test_what_was_not_written_is_lost_and_never_said_to_be_flushed(
    unflushed: Unflushed,
    states: States,
    copy: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    """The kernel tells of it once."""

    def fail(_file: int) -> None:
        raise OSError(5, "Input/output error")

    unflushed.let_go(ONE)
    with monkeypatch.context() as broken:
        broken.setattr("handiwork.sandboxes.marks.os.fsync", fail)
        if way == "flush":
            with pytest.raises(OSError, match="Input"):
                unflushed.flush(ONE)
        else:
            with pytest.raises(SandboxUnavailableError, match="was not written: Input"):
                unflushed.mount(ONE, copy)
    unflushed.flush(ONE)
    assert not states.is_flushed(ONE)
    with pytest.raises(NotFoundError, match="not whole: its disk was not written: Input/output"):
        states.load(ONE, "")


def test_barriers_that_are_on_are_found_on_when_the_rest_is_tried_again(
    unflushed: Unflushed, states: States, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_mark: Mark) -> None:
        raise OSError(30, "Read-only file system")

    mount = unflushed.mount(ONE, copy)
    ended = unflushed.use(ONE, mount)
    with monkeypatch.context() as once:
        once.setattr(Mark, "clear", fail)
        with pytest.raises(OSError, match="Read-only"):
            unflushed.flush(ONE)
    assert has_barriers(mount)
    unflushed.flush(ONE)
    assert states.is_flushed(ONE)
    os.close(mount)
    ended()


def test_without_a_device_it_is_mounted_as_any_other(
    unflushed: Unflushed, states: States, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_path: Path) -> None:
        raise OSError(16, "no loop device is free")

    states.make(ONE, "img", datetime.now(UTC))
    with monkeypatch.context() as busy:
        busy.setattr(disks, "attach", fail)
        unflushed.attach(ONE, states.disk(ONE), MIB << 20)
    assert states.disk(ONE).stat().st_size == MIB << 20
    with pytest.raises(SandboxUnavailableError, match="could not be mounted"):
        unflushed.mount(ONE, states.disk(ONE))  # there is nothing on it

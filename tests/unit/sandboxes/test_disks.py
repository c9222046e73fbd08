"""Disks that bound what a sandbox may write."""

import asyncio
import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes import disk_files, disks
from handiwork.sandboxes.disks import Disks, give_uppers, make_uppers, mount_disk

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() == 0 and not disks.can_limit_disks(),
        reason="needs loop devices, mkfs.ext4 and Linux 6.15",
    ),
]
MIB = 64


def loop_devices_of(directory: Path) -> list[str]:
    """Return the loop devices whose file lies, or lay, below a directory."""
    found = []
    for device in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if str(directory) in device.read_text():
                found.append(device.parts[3])
        except OSError:
            continue
    return found


def until(condition, seconds=20.0):
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def place(tmp_path):
    yield tmp_path
    assert until(lambda: not loop_devices_of(tmp_path)), "a loop device is left"


def write(mount: int, name: str, mib: int) -> None:
    file = os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=mount)
    try:
        for _ in range(mib):
            os.write(file, bytes(1 << 20))
        os.fsync(file)
    finally:
        os.close(file)


async def test_a_disk_takes_what_its_size_is_and_no_more(place):
    mount = await Disks(place / "disks", ready=0).take(place / "disk.img", MIB)
    try:
        write(mount, "fits", 20)  # the control
        with pytest.raises(OSError, match="No space left") as full:
            write(mount, "too-much", MIB)
        assert full.value.errno == errno.ENOSPC
    finally:
        os.close(mount)


async def test_a_copy_that_a_crash_left_hinders_nobody(place):
    (place / ".disk.img").write_bytes(b"half")
    os.close(await Disks(place / "disks", ready=0).take(place / "disk.img", MIB))
    assert not (place / ".disk.img").exists()


async def test_what_is_deleted_inside_is_the_hosts_again(place):
    path = place / "disk.img"
    mount = await Disks(place / "disks", ready=0).take(path, MIB)
    try:
        empty = path.stat().st_blocks
        write(mount, "file", 20)
        assert path.stat().st_blocks - empty >= 20 * 2048
        os.unlink("file", dir_fd=mount)
        os.sync()
        assert until(lambda: path.stat().st_blocks - empty < 5 * 2048)
    finally:
        os.close(mount)


async def test_files_are_there_when_it_is_mounted_again(place):
    path = place / "disk.img"
    mount = await Disks(place / "disks", ready=0).take(path, MIB)
    give_uppers(mount, 4711)
    write(mount, "upper/file", 1)
    os.close(mount)
    again = mount_disk(path)  # waits until the kernel has let it go
    try:
        make_uppers(again, 1)
        assert os.stat("upper", dir_fd=again).st_uid == 4711
        assert os.stat("upper/file", dir_fd=again).st_size == 1 << 20
    finally:
        os.close(again)


async def test_a_disk_that_is_in_use_is_not_mounted_twice(place, monkeypatch):
    monkeypatch.setattr(disk_files, "RELEASE_SECONDS", 0.2)
    path = place / "disk.img"
    mount = await Disks(place / "disks", ready=0).take(path, MIB)
    try:
        with pytest.raises(SandboxUnavailableError, match="could not be mounted"):
            mount_disk(path)
    finally:
        os.close(mount)


async def test_disks_are_made_before_they_are_needed(place):
    made = Disks(place / "disks", ready=2)
    os.close(await made.take(place / "first.img", MIB))
    await made.prepare(MIB)
    assert len(loop_devices_of(place / "disks")) == 2
    os.close(await made.take(place / "second.img", MIB))
    assert len(list((place / "disks").glob("[0-9]*.img"))) == 1
    made.close()
    assert not list((place / "disks").glob("[0-9]*.img"))


async def test_what_a_former_run_left_ready_is_removed(place):
    directory = place / "disks"
    directory.mkdir()
    (directory / "7.img").write_bytes(b"left")
    Disks(directory)
    assert list(directory.iterdir()) == []


async def test_a_size_that_is_too_small_is_refused(place):
    with pytest.raises(SandboxUnavailableError, match="use 64 or more"):
        await Disks(place / "disks").take(place / "disk.img", 63)


async def test_a_formatter_that_fails_is_told_and_leaves_nothing(place, monkeypatch):
    monkeypatch.setattr(disks, "JOURNAL_MIB", 1_000_000)
    with pytest.raises(UnsupportedError, match=r"mkfs\.ext4"):
        await Disks(place / "disks").take(place / "disk.img", MIB)
    assert list((place / "disks").iterdir()) == []
    assert not (place / "disk.img").exists()


async def test_a_caller_that_is_cancelled_leaves_no_mount(place):
    path = place / "disk.img"
    os.close(await Disks(place / "disks", ready=0).take(path, MIB))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await disks.mounted(path)
    os.close(await disks.mounted(path))  # nobody holds it


async def test_a_ready_disk_that_cannot_be_mounted_leaves_no_file(place, monkeypatch):
    made = Disks(place / "disks", ready=1)
    monkeypatch.setattr(disks, "CONTROL", place / "none")
    with pytest.raises(SandboxUnavailableError, match="could not be mounted"):
        await made.prepare(MIB)
    assert not list((place / "disks").glob("[0-9]*.img"))


def test_a_file_that_is_no_disk_is_refused(place):
    (place / "disk.img").write_bytes(bytes(1 << 20))
    with pytest.raises(SandboxUnavailableError, match="could not be mounted"):
        mount_disk(place / "disk.img")


HELD = """
import asyncio, os, sys, time
from pathlib import Path
from handiwork.sandboxes.disks import Disks
place = Path(sys.argv[1])
made = Disks(place / "disks", ready=1)
mount = asyncio.run(made.take(place / "disk.img", 64))
asyncio.run(made.prepare(64))
print("held", flush=True)
time.sleep(60)
"""


def test_nothing_is_left_of_one_that_was_killed(place):
    with subprocess.Popen(
        [sys.executable, "-c", HELD, place], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "held\n"
        assert len(loop_devices_of(place)) == 2  # the control
        child.kill()
    assert until(lambda: not loop_devices_of(place))
    os.close(mount_disk(place / "disk.img"))


@pytest.mark.parametrize("ready", [0, 1])
async def test_uppers_are_there_and_given_to_their_owner(place, ready):
    made = Disks(place / "disks", ready=ready)
    await made.prepare(MIB)
    mount = await made.take(place / "disk.img", MIB)
    try:
        give_uppers(mount, 4711)
        assert [os.stat(name, dir_fd=mount).st_uid for name in ("upper", "work")] == [4711, 4711]
    finally:
        os.close(mount)
    made.close()

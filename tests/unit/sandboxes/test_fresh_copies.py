"""Copies that are mounted before they are written out, and are disks like any other after that."""

import os
import threading
import time
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes import disks, fresh_copies
from handiwork.sandboxes.disk_files import copy_idle
from handiwork.sandboxes.disks import Disks, mount_disk
from handiwork.sandboxes.fresh_copies import FreshCopies, FreshCopy

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() == 0 and not disks.can_limit_disks(),
        reason="needs loop devices, mkfs.ext4 and Linux 6.15",
    ),
]


def devices_of(directory: Path) -> list[Path]:
    """Return the loop devices, as directories of /sys, whose file lies below a directory."""
    found = []
    for device in Path("/sys/block").glob("loop*"):
        try:
            if str(directory) in (device / "loop/backing_file").read_text():
                found.append(device)
        except OSError:
            continue
    return found


@pytest.fixture
def place(tmp_path):
    yield tmp_path
    ends = time.monotonic() + 20
    while devices_of(tmp_path):
        assert time.monotonic() < ends, "a loop device is left"
        time.sleep(0.02)


@pytest.fixture
async def source(place):
    """A disk with a file on it, which nobody has."""
    mount = await Disks(place / "disks", ready=0).take(place / "source.img", 64)
    write(mount, "upper/file", b"kept")
    os.close(mount)
    return place / "source.img"


def write(mount: int, name: str, content: bytes) -> None:
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=mount)
    os.write(file, content)
    os.close(file)


def read(mount: int, name: str) -> bytes:
    file = os.open(name, os.O_RDONLY, dir_fd=mount)
    try:
        return os.read(file, 100)
    finally:
        os.close(file)


def copied(source: Path, target: Path) -> FreshCopy:
    copy = FreshCopy(target)
    copy.fill(lambda file: copy_idle(source, file, threading.Event()))
    return copy


def facts(directory: Path) -> tuple[bool, bool, bool]:
    """Return of the one device of a directory: asks for flushes, does not, goes past memory."""
    (device,) = devices_of(directory)
    options = Path("/proc/fs/ext4", device.name, "options").read_text().split()
    direct = (device / "loop/dio").read_text().strip() == "1"
    return "barrier" in options, "nobarrier" in options, direct


def test_its_device_has_no_block_before_it_is_written(source, place):
    (place / "new").mkdir()
    sizes = []

    def fill(file):
        sizes.append((devices_of(place / "new")[0] / "size").read_text())
        copy_idle(source, file, threading.Event())

    copy = FreshCopy(place / "new/copy.img")
    copy.fill(fill)
    sizes.append((devices_of(place / "new")[0] / "size").read_text())
    copy.close()
    assert [int(size) for size in sizes] == [0, 64 * 2048]


def test_it_asks_for_no_flush_until_it_is_settled(source, place):
    (place / "new").mkdir()
    copy = copied(source, place / "new/copy.img")
    mount = copy.mount()
    try:
        assert read(mount, "upper/file") == b"kept"
        assert facts(place / "new") == (False, True, False)
        write(mount, "upper/before", b"before")
        assert copy.settle()
        assert facts(place / "new") == (True, False, True)
        write(mount, "upper/after", b"after")
        assert not copy.settle()
    finally:
        os.close(mount)
    again = mount_disk(place / "new/copy.img")
    try:
        assert [read(again, f"upper/{name}") for name in ("before", "after")] == [
            b"before",
            b"after",
        ]
        assert facts(place / "new")[0]
    finally:
        os.close(again)


def test_what_was_written_without_a_flush_is_there_when_it_is_mounted_again(source, place):
    copy = copied(source, place / "copy.img")
    mount = copy.mount()
    write(mount, "upper/new", b"written")
    os.close(mount)
    copy.close()
    again = mount_disk(place / "copy.img")
    try:
        assert read(again, "upper/new") == b"written"
    finally:
        os.close(again)


def test_one_that_is_closed_is_a_disk_like_any_other(source, place):
    copies = FreshCopies()
    copies.keep("one", copied(source, place / "copy.img"))
    copies.let_go("one")
    copies.let_go("one")
    assert copies.take("one") is None
    copy = copied(source, place / "other.img")
    assert not copy.settle()  # nobody has mounted it, and nobody will
    assert copy.mount() is None
    for name in ("copy", "other"):
        os.close(mount_disk(place / f"{name}.img"))


def test_one_that_is_closed_while_it_is_mounted_leaves_no_mount(source, place, monkeypatch):
    copy = copied(source, place / "copy.img")
    mount_device = fresh_copies.mount_device

    def closes(*arguments, **options):
        copy.close()
        return mount_device(*arguments, **options)

    monkeypatch.setattr(fresh_copies, "mount_device", closes)
    assert copy.mount() is None
    os.close(mount_disk(place / "copy.img"))


def test_what_cannot_be_filled_or_mounted_is_told_and_leaves_no_device(place):
    def fail(file):
        raise OSError(28, "No space left on device")

    copy = FreshCopy(place / "full.img")
    with pytest.raises(OSError, match="No space"):
        copy.fill(fail)
    copy.close()
    copy = FreshCopy(place / "empty.img")
    copy.fill(lambda file: os.ftruncate(file, 1 << 20))
    with pytest.raises(SandboxUnavailableError, match="could not be mounted"):
        copy.mount()
    copy.close()
    with pytest.raises(OSError, match="closed"):
        copy.fill(lambda file: None)

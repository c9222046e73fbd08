"""Copies of disks: without their holes, of what holds still, and whole or not at all."""

import fcntl
import os
import threading

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes import disk_files, disks
from handiwork.sandboxes.disk_files import copy_file, copy_idle, copy_over, copy_still, segments
from handiwork.sandboxes.disks import Disks, mount_disk

MIB = 64
needs_disks = pytest.mark.skipif(
    not disks.can_limit_disks(), reason="needs root, loop devices, mkfs.ext4 and Linux 6.15"
)


def sparse(path):
    with path.open("wb") as file:
        file.truncate(8 << 20)
        for at in (1 << 20, 5 << 20):
            file.seek(at)
            file.write(os.urandom(4096))
    return path


def test_holes_stay_holes_and_the_rest_is_copied(tmp_path):
    source, target = sparse(tmp_path / "source"), tmp_path / "target"
    copy_file(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks <= source.stat().st_blocks
    with source.open("rb") as file:
        assert list(segments(file.fileno())) == [
            (1 << 20, (1 << 20) + 4096),
            (5 << 20, (5 << 20) + 4096),
        ]
    with pytest.raises(FileExistsError):
        copy_file(source, target)


def test_one_that_is_stopped_says_so(tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(SandboxUnavailableError, match="stopped"):
        copy_file(sparse(tmp_path / "source"), tmp_path / "target", stop)


def test_a_disk_that_somebody_has_is_not_copied_as_if_nobody_had(tmp_path, monkeypatch):
    monkeypatch.setattr(disk_files, "RELEASE_SECONDS", 0.05)
    source = sparse(tmp_path / "source")
    with source.open("rb") as user:
        fcntl.flock(user, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            copy_idle(source, tmp_path / "target", threading.Event())
    (tmp_path / "target").touch()
    copy_idle(source, tmp_path / "target", threading.Event())  # the control


def write(mount, name, content):
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, dir_fd=mount)
    os.write(file, content)
    os.close(file)


@pytest.fixture
async def disk(tmp_path):
    mount = await Disks(tmp_path / "disks", ready=0).take(tmp_path / "disk.img", MIB)
    yield mount
    os.close(mount)


@pytest.mark.root
@needs_disks
async def test_the_copy_of_a_mounted_disk_has_what_was_just_written(disk, tmp_path):
    content = os.urandom(3 << 20)
    write(disk, "upper/file", content)
    (tmp_path / "copy.img").write_bytes(b"of a try before")
    copy_still(disk, tmp_path / "disk.img", tmp_path / "copy.img", threading.Event())
    write(disk, "upper/file", b"later")
    copy = mount_disk(tmp_path / "copy.img")
    try:
        file = os.open("upper/file", os.O_RDONLY, dir_fd=copy)
        assert os.read(file, 4 << 20) == content
        os.close(file)
    finally:
        os.close(copy)


@pytest.mark.root
@needs_disks
@pytest.mark.parametrize("times", [1, 3])
async def test_a_disk_that_does_not_hold_still_is_copied_again_and_then_given_up(
    disk, tmp_path, monkeypatch, times
):
    copies = []

    def copy(*arguments):
        copies.append(arguments)
        if len(copies) <= times:
            write(disk, "upper/file", b"%d" % len(copies))
            os.sync()
        copy_over(*arguments)

    monkeypatch.setattr(disk_files, "copy_over", copy)
    copied = tmp_path / "disk.img", tmp_path / "copy.img", threading.Event()
    copied[1].touch()
    if times == 1:
        copy_still(disk, *copied)
        assert len(copies) == 2
        return
    with pytest.raises(SandboxUnavailableError, match="was written to while"):
        copy_still(disk, *copied)

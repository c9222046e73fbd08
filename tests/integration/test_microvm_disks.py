"""What a kernel wrote to a disk, read as a machine's disk is: the same, also from what is in its journal alone."""

import mmap
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ext4_disk import contents, make_disk, read_disk, told
from handiwork.sandboxes import disks
from handiwork.sandboxes.microvm.disk_tree import volume_of
from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.walk import DIRECTORY, Uppers

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not disks.can_limit_disks(), reason="this host mounts no disks for sandboxes"
    ),
]
BASE = 1 << 30
IDS = Range(BASE)
NAMES = 1200
JOURNAL_START = 0x1C
"""Where a journal says in which of its blocks it begins, 0: it holds nothing."""


@pytest.fixture(params=[(), ("-b", "4096")], ids=["blocks of 1 KiB", "blocks of 4 KiB"])
def mounted(request, tmp_path) -> Iterator[tuple[Path, Path]]:
    """Yield a disk and where it is mounted."""
    disk = make_disk(tmp_path / "disk", None, 256, *request.param)
    place = tmp_path / "mounted"
    place.mkdir()
    subprocess.run(["mount", "-t", "ext4", "-o", "loop", disk, place], check=True)
    try:
        directory = os.open(place, DIRECTORY)
        disks.make_uppers(directory, BASE)
        os.close(directory)
        yield disk, place / "upper"
    finally:
        subprocess.run(["umount", place], check=True)


def fill(upper: Path, noise: random.Random) -> None:
    """Do what only a kernel does: indexes of directories, files in pieces, room that nobody wrote to."""
    many = upper / "many"
    many.mkdir()
    for number in range(NAMES):
        path = many / f"{number}-{'n' * (number % 90)}"
        path.write_bytes(noise.randbytes(number % 40))
        os.chown(path, BASE + number % 500, BASE + 7)
    for number in range(0, NAMES, 3):
        (many / f"{number}-{'n' * (number % 90)}").unlink()
    with (upper / "pieces").open("wb") as file, (upper / "others").open("wb") as other:
        for at in range(80):
            file.seek(at * 20_000)
            file.write(noise.randbytes(9000))
            other.write(noise.randbytes(5000))
            os.fsync(file.fileno())
    with (upper / "room").open("wb") as file:
        file.write(b"begins")
        os.posix_fallocate(file.fileno(), 0, 3_000_000)
    (upper / "gone").touch()
    (upper / "gone").unlink()
    os.mknod(upper / "gone", 0o020600, 0)
    os.setxattr(upper / "many", "user.overlay.opaque", b"y")
    os.setxattr(upper / "room", "user.long", b"l" * 700)
    (upper / "room").chmod(0o6711)
    (upper / "to").symlink_to("t" * 200)
    shutil.copytree("/usr/include/linux/netfilter", upper / "tree", symlinks=True)


def both(disk: Path, upper: Path, *, flushed: bool = True):
    """Return what the kernel shows and what is read of a copy of the disk, made while it is mounted."""
    directory = os.open(upper, DIRECTORY)
    try:
        if flushed:
            assert Uppers((directory,)).flush()
        os.fsync(directory)
        theirs, expected = contents(Uppers((directory,)), IDS)
    finally:
        os.close(directory)
    copy = disk.with_name("copy")
    shutil.copyfile(disk, copy)
    ours, found = read_disk(copy, IDS)
    return (theirs, expected), (ours, found), copy


def test_it_is_as_the_kernel_shows_it(mounted):
    disk, upper = mounted
    noise = random.Random(7)
    for turn in range(2):
        if turn:
            shutil.rmtree(upper / "many")
            (upper / f"turn-{turn}").write_bytes(noise.randbytes(700_000))
            for name in ("pieces", "others", "room", "gone", "to"):
                (upper / name).rename(upper / f"{name}-{turn}")
            shutil.rmtree(upper / "tree")
        fill(upper, noise)
        (theirs, expected), (ours, found), _ = both(disk, upper)
        assert told(ours) == told(theirs)
        assert found == expected
        assert len(ours.entries) > NAMES // 2


def test_what_is_in_the_journal_alone_is_read(mounted):
    """The control: without its journal the same copy is another tree, or none."""
    disk, upper = mounted
    fill(upper, random.Random(8))
    both(disk, upper)
    for number in range(0, 300, 2):
        (upper / f"new-{number}").mkdir()
        (upper / f"pieces-{number}").symlink_to("t" * (number % 90 + 1))
    (upper / "pieces").rename(upper / "new-4/pieces")
    shutil.rmtree(upper / "tree")
    (theirs, _), (ours, _), copy = both(disk, upper, flushed=False)
    assert told(ours) == told(theirs)
    with copy.open("r+b") as file:
        volume = volume_of(file.fileno(), lambda: False)
        assert len(volume._pending) > 10
        head = volume._journal[0].physical * volume.block_bytes
        file.seek(head + JOURNAL_START)
        file.write(bytes(4))
    try:
        without, _ = read_disk(copy, IDS)
    except DamagedDiskError:
        return
    assert told(without) != told(theirs)


def test_what_is_written_through_a_mapping_after_a_flush_changes_a_time(mounted):
    """Why a machine's disk may be compared by times: its kernel flushes it before it is read."""
    disk, upper = mounted
    path = upper / "mapped"
    path.write_bytes(bytes(8192))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 8192) as mapping:
        mapping[0:1] = b"1"
        (_, _), (first, _), _ = both(disk, upper)
        mapping[0:1] = b"2"
        (_, _), (second, found), _ = both(disk, upper)
    times = [
        [one.ctime_ns for one in each.entries if one.name == b"mapped"] for each in (first, second)
    ]
    assert times[0] != times[1]
    assert any(content[:1] == b"2" for content in found.values() if content)


def test_a_file_in_the_older_map_is_read(mounted):
    disk, upper = mounted
    noise = random.Random(9)
    path = upper / "older"
    path.write_bytes(b"begins")
    subprocess.run(["chattr", "-e", path], check=True)  # of a file as small as this it can
    with path.open("r+b") as file:
        for at in (10_000, 50_000, 9_000_000):
            file.seek(at)
            file.write(noise.randbytes(40_000))
    (theirs, expected), (ours, found), _ = both(disk, upper)
    assert told(ours) == told(theirs)
    assert found == expected

"""Disks that anybody may have written: read within bounds, or refused in our words."""

import os
import struct
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ext4_disk import contents, inode_at, make_disk, volume
from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm.disk_tree import DiskTree, walked
from handiwork.sandboxes.microvm.ext4 import journal
from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError
from handiwork.sandboxes.microvm.ext4.pieces import pieces
from handiwork.sandboxes.microvm.ext4.volume import JOURNAL
from handiwork.sandboxes.snapshots.owners import Range

IDS = Range(1 << 30)
BYTES = 1024
DISK_MIB = 8


class Loaded(DiskTree):
    """One that is in memory."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def listed(self, rules, read):
        return walked(lambda: volume(self._content), rules, read)


def make(place: Path) -> bytes:
    """Make a small disk with one of each thing."""
    upper = place / "files/upper"
    (upper / "a/b").mkdir(parents=True)
    for number in range(40):
        (upper / f"a/{number}").write_bytes(b"x" * number * 40)
    (upper / "l").symlink_to("t" * 90)
    with (upper / "sparse").open("wb") as file:
        for at in range(0, 60_000, 9_000):
            file.seek(at)
            file.write(b"y" * 1500)
    os.setxattr(upper / "a", "user.long", b"v" * 500)
    os.setxattr(upper / "a/b", "user.overlay.opaque", b"y")
    return make_disk(place / "disk", place / "files", DISK_MIB).read_bytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make(tmp_path_factory.mktemp("ext4"))


@pytest.fixture(scope="module")
def interesting(made):
    """Where the disk says what it is: head, groups, inodes, names, maps, attributes, journal."""
    disk = volume(made)
    places = [(1024, 1024), (2048, 1024)]
    table = disk._table(0) * BYTES
    places.append((table, 256 * 80))
    for path in ("upper", "upper/a", "upper/a/b", "upper/l"):
        found = pieces(disk, inode_at(disk, path))
        places += [(one.physical * BYTES, one.blocks * BYTES) for one in found]
    places.append((inode_at(disk, "upper/a").attributes_block * BYTES, BYTES))
    places.append((pieces(disk, disk.inode(JOURNAL))[0].physical * BYTES, 4 * BYTES))
    return places


def read_all(content: bytes) -> int:
    """Read all of a disk; how many bytes its files gave."""
    _, found = contents(Loaded(content), IDS)
    return sum(len(one.strip(b"\0")) for one in found.values())


values = st.sampled_from(
    [0, 1, 2, 7, 11, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 1 << 20, 1 << 31, 0xFFFFFFFF]
) | st.integers(0, 0xFFFFFFFF)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_a_disk_says_it_is_read_within_bounds(made, interesting, data):
    """The control: as it is, it is read."""
    content = bytearray(made)
    for _ in range(data.draw(st.integers(0, 4))):
        start, size = data.draw(st.sampled_from(interesting))
        width = data.draw(st.sampled_from(["<B", "<H", "<I", ">I"]))
        at = start + data.draw(st.integers(0, size // 4 - 1)) * 4 + data.draw(st.integers(0, 3))
        limit = (1 << 8 * struct.calcsize(width)) - 1
        struct.pack_into(width, content, at, data.draw(values) & limit)
    refused = ""
    try:
        assert read_all(bytes(content)) <= DISK_MIB << 20
    except SandboxUnavailableError as error:
        refused = str(error)
    assert refused.isprintable()


def test_as_it_is_it_is_read(made):
    assert read_all(made) == sum(n * 40 for n in range(40)) + 6 * 9000 + 1500


words = st.sampled_from([journal.MAGIC, 0, 1, 2, 3, 4, 5, 7, 8, 9, 1000, 0xFFFFFFFF])


@settings(deadline=None)
@given(st.lists(st.lists(words, max_size=24), min_size=1, max_size=8), st.integers(1, 8))
def test_whatever_a_journal_says_it_ends(blocks, count):
    every = [struct.pack(f">{len(one)}I", *one).ljust(BYTES, b"\0") for one in blocks]
    every += [bytes(BYTES)] * 8
    first = struct.pack(">IIIIIIIIIII", journal.MAGIC, 4, 0, BYTES, count, 1, 7, 1, 0, 0, 1)
    every[0] = first.ljust(BYTES, b"\0")
    try:
        found = journal.pending(every.__getitem__, count)
    except DamagedDiskError:
        return
    assert all(1 <= copy.at < count for copy in found.values())


@settings(deadline=None, max_examples=10)
@given(
    st.lists(
        st.tuples(st.text("ab\n \"'", min_size=1, max_size=4), st.integers(0, 30_000)),
        max_size=30,
        unique_by=lambda one: one[0],
    )
)
def test_what_mkfs_copied_is_read_as_it_was(files):
    with tempfile.TemporaryDirectory() as place:
        upper = Path(place) / "files/upper"
        upper.mkdir(parents=True)
        for name, size in files:
            (upper / name).write_bytes(name.encode() * (size // len(name)))
        content = make_disk(Path(place) / "disk", upper.parent, DISK_MIB).read_bytes()
    disk = volume(content)
    _, found = contents(Loaded(content), IDS)
    assert disk.blocks == DISK_MIB << 10
    told = {name.partition(b" ")[2]: data for name, data in found.items()}
    assert told == {name.encode(): name.encode() * (size // len(name)) for name, size in files}

"""A sandbox's tree on a disk: as the kernel would show it, and refused where there cannot be such a one."""

import itertools
import os
import random
import socket
import struct
from pathlib import Path

import pytest

from ext4_disk import change, contents, make_disk, read_disk, told
from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm import disk_tree
from handiwork.sandboxes.snapshots import listing
from handiwork.sandboxes.snapshots.manifest import MAX_DEPTH, Kind
from handiwork.sandboxes.snapshots.owners import Range
from tree_at import TreeAt

OWN = Range(0, os.geteuid())


@pytest.fixture
def upper(tmp_path):
    place = tmp_path / "files/upper"
    place.mkdir(parents=True)
    return place


def disk_of(upper: Path, *options: str) -> Path:
    return make_disk(upper.parents[1] / "disk", upper.parent, 16, *options)


def fill(upper: Path) -> None:
    """Make one of everything that mkfs.ext4 copies."""
    noise = random.Random(4)
    (upper / "a/b/c").mkdir(parents=True)
    (upper / "a/large").write_bytes(noise.randbytes(300_000))
    (upper / "a/b/small").write_bytes(b"small")
    (upper / "a/b/empty").touch()
    os.link(upper / "a/b/small", upper / "a/b/c/linked")
    (upper / "short").symlink_to("t" * 59)
    (upper / "long").symlink_to("t" * 60)
    os.mkfifo(upper / "fifo")
    os.mknod(upper / "gone", 0o020600, 0)
    os.setxattr(upper / "a", "user.overlay.opaque", b"y")
    os.setxattr(upper / "a/large", "user.mine", b"value")
    with (upper / "sparse").open("wb") as file:
        for at in (0, 400_000, 700_001):
            file.seek(at)
            file.write(noise.randbytes(5000))
        file.truncate(1_000_000)
    (upper / "a/large").chmod(0o4750)


def without(rows, *columns):
    return [tuple(one for n, one in enumerate(row) if n not in columns) for row in rows]


@pytest.mark.parametrize("options", [(), ("-b", "4096")])
def test_it_is_as_the_kernel_shows_it(upper, options):
    fill(upper)
    ours, read = read_disk(disk_of(upper, *options), OWN)
    theirs, expected = contents(TreeAt(upper), OWN)
    # mkfs.ext4 gives other inodes, and keeps no billionths of seconds.
    times = [row[6] for row in told(ours)]
    assert without(told(ours), 6, 7, 8) == without(told(theirs), 6, 7, 8)
    assert times == [row[6] // 10**9 * 10**9 for row in told(theirs)]
    by_name = {name.partition(b" ")[2]: content for name, content in read.items()}
    assert by_name == {name.partition(b" ")[2]: content for name, content in expected.items()}
    kinds = {one.kind for one in ours.entries}
    assert kinds == set(Kind)


def test_any_part_of_a_file_is_read(upper):
    fill(upper)
    whole = (upper / "sparse").read_bytes()
    seen = []

    def read(entry, content):
        if entry.name == b"sparse":
            assert content.is_sparse
            for at, size in ((0, 1), (4999, 395_010), (399_999, 10), (999_990, 50), (500_000, 9)):
                seen.append(content.read(size, at) == whole[at : at + size])
            assert content.read(10, 2_000_000) == b""
            spans = list(content.segments())
            assert len(spans) == 3
            holes = [whole[end:start] for (_, end), (start, _) in itertools.pairwise(spans)]
            assert b"".join(holes).strip(b"\0") == b""

    disk = os.open(disk_of(upper), os.O_RDONLY)
    try:
        disk_tree.DiskTree(disk).listed(listing.Rules(ids=OWN), read)
    finally:
        os.close(disk)
    assert seen == [True] * 5


def test_a_file_of_many_pieces_is_its_pieces_and_no_hole_between_them(upper):
    """Else making it again would take as much room as it is long."""
    with (upper / "pieces").open("wb") as file:
        for at in range(5000):
            file.seek(at * 100_000)
            file.write(b"x")
    disk = make_disk(upper.parents[1] / "disk", upper.parent, 64)
    spans = []
    opened = os.open(disk, os.O_RDONLY)
    try:
        disk_tree.DiskTree(opened).listed(
            listing.Rules(ids=OWN), lambda _, content: spans.extend(content.segments())
        )
    finally:
        os.close(opened)
    assert len(spans) == 5000
    assert sum(end - start for start, end in spans) <= 5000 * 4096


def test_what_is_known_is_not_read_again_and_what_is_left_out_not_at_all(upper):
    fill(upper)
    disk = disk_of(upper)
    first, _ = read_disk(disk, OWN)
    former = {one.name: one for one in first.entries if one.name == b"large"}
    second, read = read_disk(
        disk,
        OWN,
        known=lambda path: former if path == b"/a" else {},
        excluded=frozenset({b"/a/b/c", b"/long"}),
    )
    assert not any(name.endswith(b"large") for name in read)
    names = {one.name for one in second.entries}
    assert b"large" in names
    assert not names & {b"c", b"long", b"linked"}


def test_what_has_no_place_is_left_out_and_named(upper):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(upper / "sock"))
        disk = disk_of(upper)
    change(disk, "cd upper", "mknod device c 1 3")
    change(disk, "ln device upper/device")
    found, _ = read_disk(disk, OWN)
    assert found.skipped == ["/device is a device", "/sock is a socket"]
    assert [one.name for one in found.entries] == [b""]


def test_a_tree_too_deep_too_wide_or_too_large_ends_it(upper, monkeypatch):
    at = upper
    for _ in range(MAX_DEPTH + 1):
        at = at / "d"
    at.mkdir(parents=True)
    with pytest.raises(SandboxUnavailableError, match="deeper than"):
        read_disk(disk_of(upper), OWN)
    for number in range(8):
        (upper / str(number)).touch()
    disk = disk_of(upper)
    monkeypatch.setattr(disk_tree, "MAX_NAMES", 5)
    with pytest.raises(SandboxUnavailableError, match="more than 5 names"):
        read_disk(disk, OWN)
    monkeypatch.undo()
    monkeypatch.setattr(listing, "MAX_ENTRIES", 5)
    with pytest.raises(SandboxUnavailableError, match="more than 5"):
        read_disk(disk, OWN)


def test_a_directory_in_itself_ends_it(upper):
    (upper / "a/b").mkdir(parents=True)
    disk = disk_of(upper)
    change(disk, "ln upper/a upper/a/b/again")
    with pytest.raises(SandboxUnavailableError, match="/a/b/again is a directory twice"):
        read_disk(disk, OWN)


def test_one_name_twice_ends_it(upper):
    (upper / "a").touch()
    (upper / "b").touch()
    disk = disk_of(upper)
    content = bytearray(disk.read_bytes())
    at = content.index(b"\1\1b\0", content.index(b"\1\1a\0"))
    content[at + 2] = ord("a")
    disk.write_bytes(content)
    with pytest.raises(SandboxUnavailableError, match="/ has one name twice"):
        read_disk(disk, OWN)


def test_files_that_share_their_blocks_end_it(upper):
    """The bound on what is read: no file system of ours has a block twice."""
    (upper / "a").write_bytes(b"x" * 4_000_000)
    disk = disk_of(upper)
    for number in range(6):
        change(disk, f"ln upper/a upper/{number}")
    with pytest.raises(SandboxUnavailableError, match="more blocks than there are"):
        read_disk(disk, OWN)


def test_a_link_of_no_length_is_refused(upper):
    (upper / "l").symlink_to("x")
    for size in (0, 5, 5000):
        disk = disk_of(upper)
        change(disk, f"set_inode_field /upper/l size {size}")
        with pytest.raises(SandboxUnavailableError, match="leads nowhere"):
            read_disk(disk, OWN)


def test_a_disk_without_a_tree_is_refused(tmp_path):
    disk = make_disk(tmp_path / "disk", None)
    with pytest.raises(SandboxUnavailableError, match="nothing that a sandbox wrote"):
        read_disk(disk, OWN)


@pytest.mark.parametrize("after", [0, 1, 5, 20, 40])
def test_it_can_be_stopped_wherever_it_is(upper, after):
    """Whatever is read: heads, maps, names, contents."""
    fill(upper)
    disk = disk_of(upper)
    asked = itertools.count()
    with pytest.raises(SandboxUnavailableError, match="stopped"):
        read_disk(disk, OWN, stopped=lambda: next(asked) >= after)
    assert next(asked) <= after + 2
    all_of_it = itertools.count()
    read_disk(disk, OWN, stopped=lambda: next(all_of_it) < 0)
    assert next(all_of_it) > 40


def test_names_that_are_left_out_count_too(upper, monkeypatch):
    for number in range(8):
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(upper / str(number)))
    disk = disk_of(upper)
    monkeypatch.setattr(disk_tree, "MAX_ENTRIES", 5)
    with pytest.raises(SandboxUnavailableError, match="hold more than 5 names"):
        read_disk(disk, OWN)


def test_what_no_reader_foresaw_is_told_as_damage(upper, monkeypatch):
    def broken(*_):
        raise struct.error("unpack requires a buffer")

    disk = disk_of(upper)
    for name in ("find", "Volume"):
        with monkeypatch.context() as changed:
            changed.setattr(disk_tree, name, broken)
            with pytest.raises(SandboxUnavailableError, match="what cannot be: unpack"):
                read_disk(disk, OWN)

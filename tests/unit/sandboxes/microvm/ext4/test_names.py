"""Names in directories, as kernels and others write them."""

import struct

import pytest

from ext4_disk import inode_at, make_disk, volume
from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError
from handiwork.sandboxes.microvm.ext4.names import find, names
from handiwork.sandboxes.microvm.ext4.pieces import pieces


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    place = tmp_path_factory.mktemp("names")
    folder = place / "files/many"
    folder.mkdir(parents=True)
    for number in range(300):
        (folder / f"{number}-{'n' * 200}").touch()
    (place / "files/few").mkdir()
    (place / "files/few/\udcff").touch()
    return make_disk(place / "disk", place / "files").read_bytes()


def test_all_are_found(made):
    disk = volume(made)
    found = dict(names(disk, inode_at(disk, "many")))
    assert found.keys() == {f"{number}-{'n' * 200}".encode() for number in range(300)}
    assert len(set(found.values())) == 300
    few = inode_at(disk, "few")
    assert [name for name, _ in names(disk, few)] == [b"\xff"]
    assert find(disk, few, b"none") is None


def entry(inode, length, name, size=None):
    head = struct.pack("<IHBB", inode, length, len(name) if size is None else size, 1)
    return (head + name).ljust(length, b"\0")


def with_block(made, content):
    """Return the disk with other content in the block of the directory `few`."""
    disk = volume(made)
    (piece,) = pieces(disk, inode_at(disk, "few"))
    at = piece.physical * disk.block_bytes
    content = content.ljust(disk.block_bytes, b"\0")
    return volume(made[:at] + content + made[at + len(content) :])


def test_an_index_and_what_was_deleted_are_no_names(made):
    rest = entry(0, 1024 - 12 - 12 - 16, b"old")
    dots = entry(2, 12, b".") + entry(2, 12, b"..")
    disk = with_block(made, dots + entry(20, 16, b"kept") + rest)
    assert list(names(disk, inode_at(disk, "few"))) == [(b"kept", 20)]
    disk = with_block(made, entry(2, 12, b".") + entry(2, 1012, b"..") + b"an index")
    assert list(names(disk, inode_at(disk, "few"))) == []


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (entry(20, 8, b""), "there cannot be"),
        (entry(20, 16, b"a/b"), "there cannot be"),
        (entry(20, 16, b"a\0b"), "there cannot be"),
        (entry(20, 12, b"a", size=200), "there cannot be"),
        (entry(8, 16, b"a"), "what is no file"),
        (struct.pack("<IHBB", 20, 0, 1, 1), "is none"),
        (struct.pack("<IHBB", 20, 10, 1, 1), "is none"),
        (struct.pack("<IHBB", 20, 2000, 1, 1), "is none"),
        (entry(0, 1020, b""), "cut short"),
    ],
)
def test_what_no_directory_holds_is_refused(made, content, says):
    disk = with_block(made, content)
    with pytest.raises(DamagedDiskError, match=says):
        list(names(disk, inode_at(disk, "few")))

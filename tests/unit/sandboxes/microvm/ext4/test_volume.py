"""The head of a file system, its inodes, and blocks that its journal has still to put in their place."""

import struct

import pytest

from ext4_disk import change, inode_at, make_disk, volume
from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError
from handiwork.sandboxes.microvm.ext4.pieces import pieces
from handiwork.sandboxes.microvm.ext4.volume import JOURNAL, Volume


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A disk of ours with one file, as bytes."""
    place = tmp_path_factory.mktemp("volume")
    (place / "files").mkdir()
    (place / "files/a").write_bytes(b"first" * 1000)
    disk = make_disk(place / "disk", place / "files")
    change(disk, "set_inode_field /a uid 1073741829", "set_inode_field /a mtime @4294967295")
    change(disk, "set_inode_field /a mtime_extra 2001")
    return disk.read_bytes()


def changed(content, at, form, value):
    whole = bytearray(content)
    struct.pack_into(form, whole, at, value)
    return bytes(whole)


def test_what_is_known_of_a_file(made):
    inode = inode_at(volume(made), "a")
    assert (inode.size, inode.uid, inode.links, inode.device) == (5000, 1 << 30 | 5, 1, 0)
    assert inode.mode == 0o100644
    assert inode.mtime_ns == (-1 + (1 << 32)) * 10**9 + 500


@pytest.mark.parametrize(
    "options", [("-b", "1024"), ("-b", "4096"), ("-O", "^64bit"), ("-I", "128")]
)
def test_of_each_shape(tmp_path, options):
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a").write_bytes(b"x" * 10_000)
    disk = volume(make_disk(tmp_path / "disk", tmp_path / "files", 16, *options).read_bytes())
    inode = inode_at(disk, "a")
    assert inode.size == 10_000
    assert sum(piece.blocks for piece in pieces(disk, inode)) == -(-10_000 // disk.block_bytes)


@pytest.mark.parametrize(
    ("at", "form", "value", "says"),
    [
        (0x38, "<H", 1, "no ext4"),
        (0x60, "<I", 0x2C2 | 0x8000, "0x82c2"),
        (0x60, "<I", 0x2, "0x2"),
        (0x18, "<I", 3, "does not fit"),
        (0x18, "<I", 1 << 31, "does not fit"),
        (0x4, "<I", 1 << 31, "does not fit"),
        (0x4, "<I", 0, "does not fit"),
        (0x14, "<I", 7, "does not fit"),
        (0x28, "<I", 0, "does not fit"),
        (0x58, "<H", 0, "does not fit"),
        (0x58, "<H", 65535, "does not fit"),
        (0xFE, "<H", 8, "does not fit"),
        (0xFE, "<H", 33, "does not fit"),
        (0xFE, "<H", 40, "does not fit"),
        (0x0, "<I", 3, "does not fit"),
        (0xE0, "<I", 12, "lies elsewhere"),
    ],
)
def test_a_head_that_is_none_is_refused(made, at, form, value, says):
    with pytest.raises(DamagedDiskError, match=says):
        volume(changed(made, 1024 + at, form, value))


def test_what_is_cut_short_is_refused(made):
    for size in (0, 1500, 4096):
        with pytest.raises(DamagedDiskError):
            volume(made[:size])
    cut = made[: 1 << 20]
    with pytest.raises(DamagedDiskError, match="cut short"):
        inode_at(Volume(lambda at, size: cut[at : at + size], len(made)), "a")


def test_inodes_that_there_are_not(made):
    disk = volume(made)
    for number in (0, disk.inodes + 1, 1 << 40):
        with pytest.raises(DamagedDiskError, match="stands for no file"):
            disk.inode(number)
    table = changed(made, 2048 + 0x8, "<I", (1 << 32) - 1)
    with pytest.raises(DamagedDiskError, match="outside"):
        volume(table)


def test_files_have_no_more_blocks_than_there_are(made):
    disk = volume(made)
    disk.count_mapped(disk.blocks // 2)
    with pytest.raises(DamagedDiskError, match="more blocks than there are"):
        disk.count_mapped(disk.blocks // 2 + 1)


def with_journal(made, block, content):
    """Return a disk whose journal has yet to put one block in its place."""
    disk = volume(made)
    first = pieces(disk, disk.inode(JOURNAL))[0].physical
    whole = bytearray(made)

    def put(number, data):
        at = (first + number) * disk.block_bytes
        whole[at : at + len(data)] = data

    struct.pack_into(">I", whole, first * disk.block_bytes + 0x1C, 1)
    sequence = struct.unpack_from(">I", whole, first * disk.block_bytes + 0x18)[0]
    mark = content[:4] == struct.pack(">I", 0xC03B3998)
    flags = 8 | 2 | (1 if mark else 0)
    put(1, struct.pack(">IIIIHH", 0xC03B3998, 1, sequence, block, 0, flags))
    put(2, bytes(4) + content[4:] if mark else content)
    put(3, struct.pack(">III", 0xC03B3998, 2, sequence))
    return bytes(whole)


@pytest.mark.parametrize("begins", [b"none", struct.pack(">I", 0xC03B3998)])
def test_what_the_journal_holds_is_read_in_its_place(made, begins):
    plain = volume(made)
    (piece,) = pieces(plain, inode_at(plain, "a"))
    size = plain.block_bytes
    newer = begins + b"n" * (size - 4)
    disk = volume(with_journal(made, piece.physical + 1, newer))
    assert disk.block(piece.physical + 1) == newer
    assert disk.block(piece.physical) == plain.block(piece.physical)
    at = piece.physical * size
    whole = disk.bytes_at(at, 3 * size)
    assert whole == plain.block(piece.physical) + newer + plain.block(piece.physical + 2)
    assert disk.bytes_at(at + size + 100, 50) == newer[100:150]
    assert disk.bytes_at(at + 10, size) == (plain.block(piece.physical) + newer)[10 : size + 10]
    assert disk.bytes_at(at, size) == plain.block(piece.physical)


def test_an_inode_that_the_journal_holds_is_the_newer(made):
    plain = volume(made)
    number = inode_at(plain, "a").number
    at = plain._table(0) * plain.block_bytes + (number - 1) * 256
    block = at // plain.block_bytes
    newer = bytearray(plain.block(block))
    struct.pack_into("<I", newer, at % plain.block_bytes + 4, 77)
    assert inode_at(volume(with_journal(made, block, bytes(newer))), "a").size == 77

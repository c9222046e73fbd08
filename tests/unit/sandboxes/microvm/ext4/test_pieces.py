"""Where files lie, by maps that a kernel makes and maps that none would."""

import struct
from types import SimpleNamespace

import pytest

from handiwork.sandboxes.microvm.ext4 import pieces as module
from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError
from handiwork.sandboxes.microvm.ext4.pieces import Piece, pieces

EXTENTS = 0x80000
BYTES = 1024


class Disk:
    """Blocks by number; what is not there is a block of zeros."""

    block_bytes = BYTES
    blocks = 5000

    def __init__(self, blocks=None):
        self.held = blocks or {}
        self.mapped = 0

    def block(self, number):
        if not 0 <= number < self.blocks:
            raise DamagedDiskError("something lies outside of it")
        return self.held.get(number, bytes(BYTES))

    def count_mapped(self, blocks):
        self.mapped += blocks


def node(depth, *entries, count=None, magic=0xF30A):
    made = struct.pack("<HHHHI", magic, len(entries) if count is None else count, 84, depth, 0)
    return made + b"".join(entries)


def extent(logical, physical, length):
    return struct.pack("<IHHI", logical, length, physical >> 32, physical & 0xFFFFFFFF)


def index(logical, block):
    return struct.pack("<IIHH", logical, block, 0, 0)


def inode(root, *, flags=EXTENTS, size=1 << 30):
    return SimpleNamespace(inline=root.ljust(60, b"\0"), flags=flags, size=size)


def blocks_of(*numbers):
    return struct.pack(f"<{len(numbers)}I", *numbers).ljust(BYTES, b"\0")


def test_extents_in_the_inode_and_below_it():
    disk = Disk()
    assert pieces(disk, inode(node(0, extent(0, 10, 3), extent(5, 20, 1)))) == [
        Piece(0, 10, 3),
        Piece(5, 20, 1),
    ]
    assert disk.mapped == 4
    leaf = node(0, extent(0, 10, 3)), node(0, extent(3, 13, 2), extent(9, 90, 1))
    disk = Disk({70: leaf[0].ljust(BYTES, b"\0"), 71: leaf[1].ljust(BYTES, b"\0")})
    found = pieces(disk, inode(node(1, index(0, 70), index(3, 71))))
    assert found == [Piece(0, 10, 5), Piece(9, 90, 1)]


def test_what_was_never_written_to_is_a_hole():
    root = node(0, extent(0, 10, 32768 + 4), extent(4, 14, 32768), extent(32772, 9, 0))
    assert pieces(Disk({}), inode(node(0, extent(0, 10, 32768 + 4)))) == []
    with pytest.raises(DamagedDiskError, match="outside"):
        pieces(Disk(), inode(root))


@pytest.mark.parametrize(
    ("root", "says"),
    [
        (node(0, extent(5, 20, 1), extent(0, 10, 3)), "out of order"),
        (node(0, extent(0, 20, 3), extent(2, 10, 3)), "out of order"),
        (node(0, extent(0xFFFFFFFF, 20, 3)), "out of order"),
        (node(0, extent(0, 4999, 2)), "outside"),
        (node(0, extent(0, 0, 1)), "outside"),
        (node(0, extent(0, 1 << 40, 1)), "outside"),
        (node(0, magic=1), "is none"),
        (node(6, index(0, 70)), "is none"),
        (node(0, count=5), "larger than its place"),
        (node(1, index(0, 5000)), "outside"),
        (node(1, index(0, 70)), "is none"),
    ],
)
def test_what_no_kernel_writes_is_refused(root, says):
    with pytest.raises(DamagedDiskError, match=says):
        pieces(Disk(), inode(root))


def test_a_map_that_leads_back_to_itself_ends():
    again = node(1, *[index(0, 70)] * 80).ljust(BYTES, b"\0")
    with pytest.raises(DamagedDiskError, match="is none"):
        pieces(Disk({70: again}), inode(node(2, index(0, 70))))
    four = {70 + n: node(n, *[index(0, 70 + n - 1)] * 84).ljust(BYTES, b"\0") for n in range(1, 5)}
    four[70] = node(0).ljust(BYTES, b"\0")
    with pytest.raises(DamagedDiskError, match="map is too large"):
        pieces(Disk(four), inode(node(5, *[index(0, 74)] * 4)))


def test_the_older_map_of_single_blocks():
    numbers = [*range(100, 112), 200, 300, 400]
    inner = {
        200: blocks_of(112, 0, 500),
        300: blocks_of(301),
        301: blocks_of(600, 601),
        400: blocks_of(401),
        401: blocks_of(402),
        402: blocks_of(700),
    }
    root = struct.pack("<15I", *numbers)
    found = pieces(Disk(inner), inode(root, flags=0))
    assert found == [
        Piece(0, 100, 13),
        Piece(14, 500, 1),
        Piece(12 + 256, 600, 2),
        Piece(12 + 256 + 65536, 700, 1),
    ]
    short = pieces(Disk(inner), inode(root, flags=0, size=BYTES * 3 - 5))
    assert short == [Piece(0, 100, 3)]
    again = {400: blocks_of(*[400] * 256)}
    with pytest.raises(DamagedDiskError, match="more than 262144 pieces"):
        pieces(Disk(again), inode(struct.pack("<15I", *[0] * 14, 400), flags=0, size=1 << 40))


def test_too_many_pieces_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_PIECES", 2)
    root = node(0, extent(0, 10, 1), extent(1, 20, 1), extent(2, 30, 1))
    with pytest.raises(DamagedDiskError, match="more than 2 pieces"):
        pieces(Disk(), inode(root))


@pytest.mark.parametrize("flags", [0x10000000 | EXTENTS, 0x800 | EXTENTS])
def test_what_is_kept_otherwise_is_refused(flags):
    with pytest.raises(DamagedDiskError, match="not known"):
        pieces(Disk(), inode(node(0), flags=flags))

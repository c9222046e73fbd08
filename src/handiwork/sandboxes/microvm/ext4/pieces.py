"""Where the content of a file lies: in extents, or by the older map of single blocks."""

import struct
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError

MAX_PIECES = 262_144
"""Of one file."""
MAX_NODES = 16_384
MAX_LOGICAL = 1 << 32
_IN_EXTENTS, _INLINE, _ENCRYPTED = 0x80000, 0x10000000, 0x800
_MAGIC, _HEAD_BYTES, _MAX_DEPTH = 0xF30A, 12, 5
_UNWRITTEN = 32768
_DIRECT = 12


class Piece(NamedTuple):
    """So many blocks of a file, one after the other on the disk."""

    logical: int
    physical: int
    blocks: int


class Blocks(Protocol):
    """What is read."""

    block_bytes: int
    blocks: int

    def block(self, number: int) -> bytes:
        """Return a block; DamagedDiskError where there is none."""
        ...

    def count_mapped(self, blocks: int) -> None:
        """Count blocks of a file."""
        ...


class Mapped(Protocol):
    """The file."""

    @property
    def size(self) -> int:
        """How long it is."""
        ...

    @property
    def flags(self) -> int:
        """How it is kept."""
        ...

    @property
    def inline(self) -> bytes:
        """The root of its map."""
        ...


def pieces(volume: Blocks, inode: Mapped) -> list[Piece]:
    """Return what is written of a file, ascending; the rest of it are zeros."""
    if inode.flags & (_INLINE | _ENCRYPTED):
        raise DamagedDiskError("a file is kept in a way that is not known")
    walk = _Extents(volume) if inode.flags & _IN_EXTENTS else _Map(volume, inode.size)
    found: list[Piece] = []
    end = 0
    for piece in walk.run(inode.inline):
        if piece.logical < end or piece.logical + piece.blocks > MAX_LOGICAL:
            raise DamagedDiskError("a file's pieces are out of order")
        if piece.physical <= 0 or piece.physical + piece.blocks > volume.blocks:
            raise DamagedDiskError("a file lies outside of it")
        end = piece.logical + piece.blocks
        _append(found, piece)
    volume.count_mapped(sum(piece.blocks for piece in found))
    return found


def _append(found: list[Piece], piece: Piece) -> None:
    """Add a piece, to the last one where it goes on from there."""
    if found:
        last = found[-1]
        if (
            last.logical + last.blocks == piece.logical
            and last.physical + last.blocks == piece.physical
        ):
            found[-1] = Piece(last.logical, last.physical, last.blocks + piece.blocks)
            return
    if len(found) >= MAX_PIECES:
        raise DamagedDiskError(f"a file lies in more than {MAX_PIECES} pieces")
    found.append(piece)


class _Walk:
    def __init__(self, volume: Blocks) -> None:
        self._volume = volume
        self._nodes = 0

    def _node(self, number: int) -> bytes:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise DamagedDiskError("a file's map is too large")
        self._volume.count_mapped(1)
        return self._volume.block(number)


class _Extents(_Walk):
    def run(self, root: bytes) -> Iterator[Piece]:
        """Yield the pieces below a node."""
        yield from self._below(root, None)

    def _below(self, node: bytes, level: int | None) -> Iterator[Piece]:
        magic, count, _, depth = struct.unpack_from("<HHHH", node)
        if magic != _MAGIC or depth > _MAX_DEPTH or (level is not None and depth != level):
            raise DamagedDiskError("a file's map is none")
        if _HEAD_BYTES * (count + 1) > len(node):
            raise DamagedDiskError("a file's map is larger than its place")
        for at in range(_HEAD_BYTES, _HEAD_BYTES * (count + 1), _HEAD_BYTES):
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, at)
                yield from self._below(self._node(low | high << 32), depth - 1)
                continue
            logical, length, high, low = struct.unpack_from("<IHHI", node, at)
            if 0 < length <= _UNWRITTEN:  # more is room that was never written to
                yield Piece(logical, low | high << 32, length)


class _Map(_Walk):
    def __init__(self, volume: Blocks, size: int) -> None:
        super().__init__(volume)
        self._needed = -(-size // volume.block_bytes)
        self._width = volume.block_bytes // 4

    def run(self, root: bytes) -> Iterator[Piece]:
        """Yield the pieces of a map that begins in an inode."""
        numbers = struct.unpack_from("<15I", root)
        yield from self._single(numbers[:_DIRECT], 0)
        at = _DIRECT
        for level, number in enumerate(numbers[_DIRECT:], start=1):
            yield from self._indirect(number, level, at)
            at += self._width**level

    def _indirect(self, number: int, level: int, at: int) -> Iterator[Piece]:
        if not number or at >= self._needed:
            return
        inner = struct.unpack(f"<{self._width}I", self._node(number))
        if level == 1:
            yield from self._single(inner, at)
            return
        for index, each in enumerate(inner):
            yield from self._indirect(each, level - 1, at + index * self._width ** (level - 1))

    def _single(self, numbers: tuple[int, ...], at: int) -> Iterator[Piece]:
        for logical, number in enumerate(numbers, start=at):
            if number and logical < self._needed:
                yield Piece(logical, number, 1)

"""The names in a directory. What an index is for the kernel looks like a name of nothing, and is passed over."""

import struct
from collections.abc import Iterator

from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError
from handiwork.sandboxes.microvm.ext4.pieces import pieces
from handiwork.sandboxes.microvm.ext4.volume import Inode, Volume

_HEAD = struct.Struct("<IHB")
_HEAD_BYTES = 8
_OWN = (b".", b"..")


def names(volume: Volume, directory: Inode) -> Iterator[tuple[bytes, int]]:
    """Yield each name and the number of its inode, in no order; one may come twice."""
    for piece in pieces(volume, directory):
        for number in range(piece.physical, piece.physical + piece.blocks):
            yield from _names_in(volume, volume.block(number))


def find(volume: Volume, directory: Inode, name: bytes) -> Inode | None:
    """Return the file of a name, None when there is none."""
    for found, number in names(volume, directory):
        if found == name:
            return volume.inode(number)
    return None


def _names_in(volume: Volume, block: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at < len(block):
        if at + _HEAD_BYTES > len(block):
            raise DamagedDiskError("a directory is cut short")
        inode, length, name_bytes = _HEAD.unpack_from(block, at)
        if length < _HEAD_BYTES or length % 4 or at + length > len(block):
            raise DamagedDiskError("a directory is none")
        if inode:
            yield from _checked(volume, block[at : at + length], name_bytes, inode)
        at += length


def _checked(volume: Volume, entry: bytes, size: int, inode: int) -> Iterator[tuple[bytes, int]]:
    name = entry[_HEAD_BYTES : _HEAD_BYTES + size]
    if name in _OWN:
        return
    if len(name) < size or not name or b"/" in name or b"\0" in name:
        raise DamagedDiskError("a directory has a name that there cannot be")
    if inode < volume.first_inode:
        raise DamagedDiskError("a name stands for what is no file")
    yield name, inode

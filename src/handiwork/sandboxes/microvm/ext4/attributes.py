"""Extended attributes: beside the inode, and in a block of their own. Access lists are told as the kernel tells them.

Format: Linux, `fs/ext4/xattr.h` and `fs/ext4/acl.h`.
"""

import struct
from collections.abc import Iterator

from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError
from handiwork.sandboxes.microvm.ext4.volume import Inode, Volume

_MAGIC, _BLOCK_HEAD_BYTES, _ENTRY_BYTES = 0xEA020000, 32, 16
_PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
    7: b"system.",
}
_ACLS = (2, 3)
_ACL_ON_DISK, _ACL_TOLD, _NOBODY = 1, 2, 0xFFFFFFFF
_NAMED = (0x02, 0x08)
MAX_COUNT = 1024


def attributes(volume: Volume, inode: Inode) -> Iterator[tuple[bytes, bytes]]:
    """Yield each name and its value."""
    if inode.extra[:4] == struct.pack("<I", _MAGIC):
        yield from _entries(inode.extra[4:], 0, len(inode.extra))
    if inode.attributes_block:
        block = volume.block(inode.attributes_block)
        if block[:4] != struct.pack("<I", _MAGIC):
            raise DamagedDiskError("a file's attributes are none")
        yield from _entries(block, _BLOCK_HEAD_BYTES, len(block))


def _entries(room: bytes, at: int, left: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the attributes whose heads begin there; values lie where their heads say, from 0 on.

    `left` bytes are all that values can have, which do not overlap.
    """
    for _ in range(MAX_COUNT):
        if room[at : at + 4] in (b"", b"\0\0\0\0"):
            return
        if at + _ENTRY_BYTES > len(room):
            raise DamagedDiskError("a file's attributes are cut short")
        size, kind, where, elsewhere, length, _ = struct.unpack_from("<BBHIII", room, at)
        name = room[at + _ENTRY_BYTES : at + _ENTRY_BYTES + size]
        value = room[where : where + length]
        left -= length
        if elsewhere or len(name) < size or len(value) < length or b"\0" in name or left < 0:
            raise DamagedDiskError("a file's attributes do not fit their place")
        if kind in _PREFIXES:
            told = _acl(value) if kind in _ACLS else value
            yield _PREFIXES[kind] + (b"" if kind in _ACLS else name), told
        at += _ENTRY_BYTES + (size + 3 & ~3)
    raise DamagedDiskError("a file has too many attributes")


def _acl(value: bytes) -> bytes:
    if len(value) < 4 or struct.unpack_from("<I", value)[0] != _ACL_ON_DISK:
        raise DamagedDiskError("an access list is none")
    told, at = bytearray(struct.pack("<I", _ACL_TOLD)), 4
    while at < len(value):
        try:
            tag, permissions = struct.unpack_from("<HH", value, at)
            owner = struct.unpack_from("<I", value, at + 4)[0] if tag in _NAMED else _NOBODY
        except struct.error:
            raise DamagedDiskError("an access list is cut short") from None
        told += struct.pack("<HHI", tag, permissions, owner)
        at += 8 if tag in _NAMED else 4
    return bytes(told)

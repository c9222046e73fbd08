"""The file system as a whole: where blocks and inodes lie, with what its journal has still to put there.

Format: Linux, `fs/ext4/ext4.h`; all numbers are little-endian.
"""

import struct
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from handiwork.sandboxes.microvm.ext4 import journal
from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError
from handiwork.sandboxes.microvm.ext4.pieces import Piece, pieces

Read = Callable[[int, int], bytes]
"""Returns so many bytes from there on: offset, size. Fewer only at the end of the disk."""

ROOT, JOURNAL = 2, 8
_SUPER_AT, _SUPER_BYTES, _MAGIC = 1024, 1024, 0xEF53
_HAS_JOURNAL = 0x4
_FILETYPE, _RECOVER, _EXTENTS, _WIDE, _FLEXIBLE, _SUM_SEED = 0x2, 0x4, 0x40, 0x80, 0x200, 0x2000
_UNDERSTOOD = _FILETYPE | _RECOVER | _EXTENTS | _WIDE | _FLEXIBLE | _SUM_SEED
_BLOCK_BYTES = (1024, 2048, 4096)
_NARROW_BYTES, _WIDE_BYTES = 32, (64, 128, 256, 512, 1024)
"""How long what is told of a group may be."""
_CHARACTER, _BLOCK_DEVICE, _FORMAT = 0o020000, 0o060000, 0o170000


@dataclass(frozen=True, slots=True, kw_only=True)
class Inode:
    """What is known of a file. `inline` are 60 bytes, `extra` is the room for attributes beside them."""

    number: int
    mode: int
    uid: int
    gid: int
    links: int
    size: int
    mtime_ns: int
    ctime_ns: int
    flags: int
    inline: bytes
    attributes_block: int
    extra: bytes

    @property
    def device(self) -> int:
        """The number of a device, in the one or the other form; 0 for all else."""
        if self.mode & _FORMAT not in (_CHARACTER, _BLOCK_DEVICE):
            return 0
        old, new = struct.unpack_from("<II", self.inline)
        return int(old or new)


class Volume:
    """One file system, of a disk that nobody writes to. DamagedDiskError where it cannot be read."""

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._parse(read(_SUPER_AT, _SUPER_BYTES), size)
        self._pending: dict[int, journal.Copy] = {}
        self._ordered: list[int] = []
        self._journal: list[Piece] = []
        self._mapped = 0
        self._tables: dict[int, int] = {}
        if self._journal_inode:
            self._replay()

    def _parse(self, head: bytes, size: int) -> None:
        if len(head) < _SUPER_BYTES or struct.unpack_from("<H", head, 0x38)[0] != _MAGIC:
            raise DamagedDiskError("there is no ext4 file system on it")
        number = struct.Struct("<I").unpack_from
        compatible, features = number(head, 0x5C)[0], number(head, 0x60)[0]
        if features & ~_UNDERSTOOD or not features & _EXTENTS:
            raise DamagedDiskError(f"it has features that are not known: {features:#x}")
        wide = bool(features & _WIDE)
        self.block_bytes = 1024 << min(number(head, 0x18)[0], 16)
        self.blocks = number(head, 0x4)[0] | (number(head, 0x150)[0] << 32 if wide else 0)
        self._first_block = number(head, 0x14)[0]
        self.inodes, self._per_group = number(head, 0x0)[0], number(head, 0x28)[0]
        self.first_inode = number(head, 0x54)[0]
        self._inode_bytes = struct.unpack_from("<H", head, 0x58)[0]
        self._group_bytes = struct.unpack_from("<H", head, 0xFE)[0] if wide else _NARROW_BYTES
        self._journal_inode = compatible & _HAS_JOURNAL and number(head, 0xE0)[0]
        if self._journal_inode not in (0, JOURNAL):
            raise DamagedDiskError("its journal lies elsewhere")
        self._check(size)

    def _check(self, size: int) -> None:
        sound = (
            self.block_bytes in _BLOCK_BYTES
            and 0 < self.blocks * self.block_bytes <= size
            and self._first_block == (1 if self.block_bytes == _BLOCK_BYTES[0] else 0)
            and 128 <= self._inode_bytes <= self.block_bytes
            and self._inode_bytes & (self._inode_bytes - 1) == 0
            and self._group_bytes in (_NARROW_BYTES, *_WIDE_BYTES)
            and self._per_group > 0
            and self.inodes > JOURNAL
        )
        if not sound:
            raise DamagedDiskError("its head does not fit it")

    def _replay(self) -> None:
        """Read every block from now on as it will be when the journal has been put in its place."""
        inode = self.inode(JOURNAL)
        blocks = inode.size // self.block_bytes
        self._journal = pieces(self, inode)
        self._pending = journal.pending(self._journal_block, blocks)
        self._ordered = sorted(self._pending)

    def _journal_block(self, number: int) -> bytes:
        at = bisect_left(self._journal, number + 1, key=_logical) - 1
        piece = self._journal[at] if at >= 0 else None
        if piece is None or number >= piece.logical + piece.blocks:
            raise DamagedDiskError("its journal has a hole")
        return self._block(piece.physical + number - piece.logical)

    def block(self, number: int) -> bytes:
        """Return a block."""
        copy = self._pending.get(number)
        if copy is None:
            return self._block(number)
        content = self._journal_block(copy.at)
        return struct.pack(">I", journal.MAGIC) + content[4:] if copy.escaped else content

    def _block(self, number: int) -> bytes:
        if not 0 <= number < self.blocks:
            raise DamagedDiskError("something lies outside of it")
        return self._whole(number * self.block_bytes, self.block_bytes)

    def _whole(self, at: int, size: int) -> bytes:
        found = self._read(at, size)
        if len(found) < size:
            raise DamagedDiskError("it is cut short")
        return found

    def bytes_at(self, at: int, size: int) -> bytes:
        """Return bytes, of any number of blocks; they lie within the disk, as those of pieces do."""
        found = self._whole(at, size)
        first, last = at // self.block_bytes, (at + size - 1) // self.block_bytes
        for index in range(bisect_left(self._ordered, first), len(self._ordered)):
            number = self._ordered[index]
            if number > last:
                break
            found = _patched(found, number * self.block_bytes - at, self.block(number))
        return found

    def inode(self, number: int) -> Inode:
        """Return an inode."""
        if not 0 < number <= self.inodes:
            raise DamagedDiskError("a name stands for no file")
        group, index = divmod(number - 1, self._per_group)
        at = self._table(group) * self.block_bytes + index * self._inode_bytes
        return _inode(number, self._within(at, self._inode_bytes))

    def _table(self, group: int) -> int:
        """Return where a group's inodes begin: nothing that a journal changes."""
        table = self._tables.get(group)
        if table is None:
            at = (self._first_block + 1) * self.block_bytes + group * self._group_bytes
            head = self._within(at, self._group_bytes)
            table = int(struct.unpack_from("<I", head, 0x8)[0])
            if self._group_bytes > _NARROW_BYTES:
                table |= struct.unpack_from("<I", head, 0x28)[0] << 32
            self._tables[group] = table
        return table

    def _within(self, at: int, size: int) -> bytes:
        if not 0 <= at <= self.blocks * self.block_bytes - size:
            raise DamagedDiskError("something lies outside of it")
        return self.bytes_at(at, size)

    def count_mapped(self, blocks: int) -> None:
        """Count what files are made of: all of them together have no more blocks than the disk."""
        self._mapped += blocks
        if self._mapped > self.blocks:
            raise DamagedDiskError("its files have more blocks than there are")


def _logical(piece: Piece) -> int:
    return piece.logical


def _patched(found: bytes, at: int, block: bytes) -> bytes:
    """Put a block into bytes, of which it may begin before the first or end after the last."""
    if at < 0:
        block, at = block[-at:], 0
    block = block[: len(found) - at]
    return found[:at] + block + found[at + len(block) :]


def _inode(number: int, raw: bytes) -> Inode:
    mode, uid, size, _, ctime, mtime, _, gid, links, _, flags = struct.unpack_from(
        "<HHIIiiIHHII", raw
    )
    high_size = struct.unpack_from("<I", raw, 0x6C)[0]
    low_block = struct.unpack_from("<I", raw, 0x68)[0]
    high_block, high_uid, high_gid = struct.unpack_from("<HHH", raw, 0x76)
    extra_bytes = struct.unpack_from("<H", raw, 0x80)[0] if len(raw) > 0x82 else 0
    if extra_bytes and not 4 <= extra_bytes <= len(raw) - 0x80:
        raise DamagedDiskError("a file's head does not fit it")
    later = raw[0x80 : 0x80 + extra_bytes]
    return Inode(
        number=number,
        mode=mode,
        uid=uid | high_uid << 16,
        gid=gid | high_gid << 16,
        links=links,
        size=size | high_size << 32,
        ctime_ns=_time_ns(ctime, later, 0x4),
        mtime_ns=_time_ns(mtime, later, 0x8),
        flags=flags,
        inline=raw[0x28:0x64],
        attributes_block=low_block | high_block << 32,
        extra=raw[0x80 + extra_bytes :] if extra_bytes else b"",
    )


def _time_ns(seconds: int, later: bytes, at: int) -> int:
    """Return a time of 34 bits and its billionths, as far as there is room for them."""
    more = struct.unpack_from("<I", later, at)[0] if len(later) >= at + 4 else 0
    return (seconds + ((more & 3) << 32)) * 1_000_000_000 + min(more >> 2, 999_999_999)

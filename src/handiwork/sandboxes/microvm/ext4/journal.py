"""What a journal has still to put in its place: by block, where in the journal its newest content lies.

Of a transaction all counts or nothing: its commit block is written when all before it is on the disk.
Format: Linux, `include/linux/jbd2.h`; all numbers are big-endian.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError

MAX_BLOCKS = 1 << 20
MAX_REVOKED = 1_000_000
MAGIC = 0xC03B3998
_DESCRIPTOR, _COMMIT, _SUPERBLOCKS, _REVOKE = 1, 2, (3, 4), 5
_ESCAPED, _SAME_UUID, _LAST = 1, 2, 8
REVOKES, WIDE, SUMS_2, SUMS_3 = 0x1, 0x2, 0x8, 0x10
_UNDERSTOOD = REVOKES | WIDE | SUMS_2 | SUMS_3
_HEAD = struct.Struct(">III")
_UUID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Copy:
    """Where in the journal a block's content lies. `escaped`: it begins with the journal's own mark."""

    at: int
    escaped: bool


@dataclass
class _Transaction:
    copies: list[tuple[int, Copy]] = field(default_factory=list)
    revoked: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Shape:
    blocks: int
    first: int
    sequence: int
    start: int
    features: int

    def after(self, at: int, count: int = 1) -> int:
        """Return the block that follows, around the end."""
        return self.first + (at - self.first + count) % (self.blocks - self.first)


def pending(read: Callable[[int], bytes], blocks: int) -> dict[int, Copy]:
    """Return what the journal's `blocks`, which `read` gives by number, have to put in its place."""
    shape = _shape(read(0), blocks)
    if not shape.start:
        return {}
    transactions = list(_transactions(read, shape))
    revoked: dict[int, int] = {}
    for number, transaction in enumerate(transactions):
        revoked.update(dict.fromkeys(transaction.revoked, number))
    found: dict[int, Copy] = {}
    for number, transaction in enumerate(transactions):
        for block, copy in transaction.copies:
            if revoked.get(block, -1) < number:
                found[block] = copy
    return found


def _shape(head: bytes, blocks: int) -> _Shape:
    magic, kind, _ = _HEAD.unpack_from(head)
    if magic != MAGIC or kind not in _SUPERBLOCKS:
        raise DamagedDiskError("its journal has no head")
    block_bytes, most, first, sequence, start = struct.unpack_from(">IIIII", head, 12)
    features = struct.unpack_from(">I", head, 0x28)[0] if kind == _SUPERBLOCKS[1] else 0
    if features & ~_UNDERSTOOD:
        raise DamagedDiskError(f"its journal has features that are not known: {features:#x}")
    if block_bytes != len(head) or not 1 <= first < most <= min(blocks, MAX_BLOCKS):
        raise DamagedDiskError("its journal is not as large as it says")
    if start and not first <= start < most:
        raise DamagedDiskError("its journal begins outside of itself")
    return _Shape(most, first, sequence, start, features)


def _transactions(read: Callable[[int], bytes], shape: _Shape) -> Iterator[_Transaction]:
    """Yield those that were committed, in their order."""
    at, sequence, left = shape.start, shape.sequence, shape.blocks - shape.first
    revoked = 0
    open_one = _Transaction()
    while left > 0:
        block = read(at)
        magic, kind, number = _HEAD.unpack_from(block)
        if magic != MAGIC or number != sequence:
            return
        used = 1
        if kind == _DESCRIPTOR:
            for target, escaped in _tags(block, shape.features):
                copy = Copy(shape.after(at, used), escaped)
                open_one.copies.append((target, copy))
                used += 1
        elif kind == _REVOKE:
            taken_back = _revoked(block, shape.features)
            open_one.revoked += taken_back
            revoked += len(taken_back)
            if revoked > MAX_REVOKED:
                raise DamagedDiskError("its journal takes back too much")
        elif kind == _COMMIT:
            yield open_one
            open_one, sequence = _Transaction(), (sequence + 1) & 0xFFFFFFFF
        else:
            return
        at, left = shape.after(at, used), left - used


def _tags(block: bytes, features: int) -> Iterator[tuple[int, bool]]:
    """Yield the blocks that follow a descriptor: where each belongs, and whether it is escaped."""
    at, end = _HEAD.size, len(block) - (4 if features & (SUMS_2 | SUMS_3) else 0)
    size = 16 if features & SUMS_3 else 8 + (2 if features & SUMS_2 else 0)
    size += 4 if features & WIDE and not features & SUMS_3 else 0
    while at + size <= end:
        if features & SUMS_3:
            low, flags, high = struct.unpack_from(">III", block, at)
        else:
            low, _, flags = struct.unpack_from(">IHH", block, at)
            high = struct.unpack_from(">I", block, at + 8)[0] if features & WIDE else 0
        yield low | (high << 32 if features & WIDE else 0), bool(flags & _ESCAPED)
        at += size + (0 if flags & _SAME_UUID else _UUID_BYTES)
        if flags & _LAST:
            return


def _revoked(block: bytes, features: int) -> list[int]:
    end = struct.unpack_from(">I", block, _HEAD.size)[0]
    start, kind = _HEAD.size + 4, "Q" if features & WIDE else "I"
    size = struct.calcsize(f">{kind}")
    if not start <= end <= len(block):
        raise DamagedDiskError("its journal takes back more than it says")
    count = (end - start) // size
    return list(struct.unpack_from(f">{count}{kind}", block, start))

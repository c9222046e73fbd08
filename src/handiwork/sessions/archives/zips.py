"""Zip archives (PKWARE APPNOTE 6.3): stored and deflated members of one plain file.

Strict: the central directory is what counts, each member's own header must agree with it, members
lie side by side in the file, and nothing is encrypted, split or Zip64.
"""

import itertools
import stat
import struct
import zlib
from dataclasses import dataclass

from handiwork.sessions.archives.rules import ArchiveError, Budget, Tree

MAGIC = (b"PK\x03\x04", b"PK\x05\x06")

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_COMMENT_BYTES = 0xFFFF
_UNIX_HOSTS = (3, 19)
_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1
_KINDS = (0, stat.S_IFREG, stat.S_IFDIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Member:
    name: bytes
    mode: int
    method: int
    crc: int
    packed: int
    size: int
    at: int


def read(data: bytes, tree: Tree, budget: Budget) -> None:
    """Put every member into the tree; ArchiveError at the first fault."""
    count, size, start = _directory(data)
    end = start + size
    at, taken = start, list[tuple[int, int]]()
    for _ in range(count):
        budget.member()
        member, at = _central(data, at, end)
        taken.append(_take(data, start, member, tree, budget))
    taken.sort()
    if any(one[1] > other[0] for one, other in itertools.pairwise(taken)):
        raise ArchiveError("the zip archive has members that overlap")


def _directory(data: bytes) -> tuple[int, int, int]:
    """Return how many members the archive has, and where their directory lies."""
    at = data.rfind(b"PK\x05\x06", max(0, len(data) - _END.size - _COMMENT_BYTES))
    if at < 0 or at + _END.size > len(data):
        raise ArchiveError("the zip archive is cut short")
    _, disk, first, here, count, size, start, comment = _END.unpack_from(data, at)
    if disk or first or here != count or 0xFFFF in (here, count) or 0xFFFFFFFF in (size, start):
        raise ArchiveError("the zip archive is split or Zip64")
    if start + size != at or at + _END.size + comment != len(data):
        raise ArchiveError("the zip archive has bytes that belong to nothing")
    return count, size, start


def _central(data: bytes, at: int, end: int) -> tuple[_Member, int]:
    """Return the member that is told at a place of the directory, and the next place."""
    if at + _CENTRAL.size > end:
        raise ArchiveError("the zip archive's directory is cut short")
    found = _CENTRAL.unpack_from(data, at)
    magic, made, _, flags, method, _, _, crc, packed, size, name, extra, comment = found[:13]
    _, _, attributes, offset = found[13:]
    after = at + _CENTRAL.size + name + extra + comment
    if magic != b"PK\x01\x02" or after > end:
        raise ArchiveError("the zip archive's directory is malformed")
    if flags & _ENCRYPTED or method not in (_STORED, _DEFLATED):
        raise ArchiveError("the zip archive has a member that is encrypted or oddly packed")
    raw = data[at + _CENTRAL.size : at + _CENTRAL.size + name]
    mode = attributes >> 16 if made >> 8 in _UNIX_HOSTS else 0
    member = _Member(
        name=raw,
        mode=mode,
        method=method,
        crc=crc,
        packed=packed,
        size=size,
        at=offset,
    )
    return member, after


def _take(data: bytes, limit: int, member: _Member, tree: Tree, budget: Budget) -> tuple[int, int]:
    """Unpack one member, which ends before `limit`, into the tree; return what it occupies."""
    kind = stat.S_IFMT(member.mode)
    if kind not in _KINDS:
        raise ArchiveError(f"the archive has a link or a special file: {member.name[:80]!r}")
    start = _body(data, member)
    end = start + member.packed
    if end > limit:
        raise ArchiveError("the zip archive is cut short")
    if member.name.endswith(b"/") or kind == stat.S_IFDIR:
        if member.size or member.packed > 2:
            raise ArchiveError(f"the archive's directory {member.name[:80]!r} has content")
        tree.directory(member.name)
    else:
        tree.file(member.name, member.mode, _content(data[start:end], member, budget))
    return member.at, end


def _body(data: bytes, member: _Member) -> int:
    """Return where a member's bytes begin; its own header must bear the same name."""
    if member.at + _LOCAL.size > len(data):
        raise ArchiveError("the zip archive is cut short")
    magic, _, flags, method, _, _, _, _, _, name, extra = _LOCAL.unpack_from(data, member.at)
    start: int = member.at + _LOCAL.size
    if (
        magic != b"PK\x03\x04"
        or method != member.method
        or flags & _ENCRYPTED
        or data[start : start + name] != member.name
    ):
        raise ArchiveError(f"the zip archive disagrees with itself about {member.name[:80]!r}")
    return start + int(name) + int(extra)


def _content(packed: bytes, member: _Member, budget: Budget) -> bytes:
    budget.check_time()
    if member.size >= budget.room():
        budget.spend(member.size)
    if member.method == _STORED:
        content = packed
    else:
        unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
        try:
            content = unpacking.decompress(packed, member.size + 1)
        except zlib.error as error:
            raise ArchiveError(
                f"the archive's {member.name[:80]!r} is malformed: {error}"
            ) from None
        if not unpacking.eof or unpacking.unused_data:
            raise ArchiveError(f"the archive's {member.name[:80]!r} is not as long as it says")
    if len(content) != member.size or zlib.crc32(content) != member.crc:
        raise ArchiveError(f"the archive's {member.name[:80]!r} is not what it says")
    budget.spend(len(content))
    return content

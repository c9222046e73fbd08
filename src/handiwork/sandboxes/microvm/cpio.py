"""The archive that a kernel unpacks as its first root file system ("newc", cpio(5)). Pure."""

import stat
from collections.abc import Iterable

import msgspec

_MAGIC = b"070701"
_END = "TRAILER!!!"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A regular file, or a directory where `content` is None; its parents come before it."""

    path: str
    content: bytes | None = None
    mode: int = 0o644


def archive(entries: Iterable[Entry]) -> bytes:
    """Return the archive; every entry is root's and of the year 1970."""
    parts = [_member(number, entry) for number, entry in enumerate(entries, 1)]
    return b"".join([*parts, _header(0, _END, 0, 0)])


def _member(number: int, entry: Entry) -> bytes:
    if entry.content is None:
        return _header(number, entry.path, stat.S_IFDIR | 0o755, 0)
    header = _header(number, entry.path, stat.S_IFREG | entry.mode, len(entry.content))
    return header + _padded(entry.content)


def _header(number: int, path: str, mode: int, size: int) -> bytes:
    name = path.encode() + b"\0"
    #        ino     mode  uid gid links time size devices (4)   name      check
    fields = (number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, len(name), 0)
    return _padded(_MAGIC + b"".join(b"%08X" % field for field in fields) + name)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)

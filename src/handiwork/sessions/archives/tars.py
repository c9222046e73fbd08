"""Tar archives: ustar, with GNU and pax names (POSIX.1-2017, pax interchange format).

Strict: a header whose checksum fails, a kind other than file or directory, or a record that
stretches beyond the archive refuses it.
"""

from handiwork.sessions.archives.rules import ArchiveError, Budget, Tree

BLOCK = 512
_FILES = (b"0", b"\0", b"7")
_DIRECTORY, _GNU_NAME, _PAX, _PAX_GLOBAL = b"5", b"L", b"x", b"g"
_MAX_EXTENSION_BYTES = 64 * 1024
_PAX_IGNORED = frozenset(
    (b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname", b"comment", b"charset")
)


def looks_like_tar(data: bytes) -> bool:
    """Say whether the first block is a header."""
    return len(data) >= BLOCK and data[257:262] == b"ustar" and _is_sound(data[:BLOCK])


def read(data: bytes, tree: Tree, budget: Budget) -> None:
    """Put every member into the tree; ArchiveError at the first fault."""
    at, named = 0, b""
    while at + BLOCK <= len(data):
        header = data[at : at + BLOCK]
        if not any(header):
            return
        if not _is_sound(header):
            raise ArchiveError("the tar archive has a malformed header")
        budget.member()
        size = _number(header[124:136])
        body = data[at + BLOCK : at + BLOCK + size]
        if len(body) < size:
            raise ArchiveError("the tar archive is cut short")
        at += BLOCK + -(-size // BLOCK) * BLOCK
        kind = header[156:157]
        if kind in (_GNU_NAME, _PAX, _PAX_GLOBAL):
            named = _extension(kind, body) or named
            continue
        _take(kind, named or _name(header), _number(header[100:108]), body, tree)
        named = b""
    raise ArchiveError("the tar archive is cut short")


def _take(kind: bytes, name: bytes, mode: int, body: bytes, tree: Tree) -> None:
    if kind == _DIRECTORY or (kind in _FILES and name.endswith(b"/")):
        if body:
            raise ArchiveError(f"the archive's directory {name[:80]!r} has content")
        tree.directory(name)
    elif kind in _FILES:
        tree.file(name, mode, body)
    else:
        raise ArchiveError(f"the archive has a link or a special file: {name[:80]!r}")


def _is_sound(header: bytes) -> bool:
    try:
        told = _number(header[148:156])
    except ArchiveError:
        return False
    return told == sum(header[:148]) + 8 * 0x20 + sum(header[156:])


def _number(digits: bytes) -> int:
    """Return an octal number; the binary form of sizes from 8 GiB on is over every limit."""
    text = digits.split(b"\0")[0].strip(b" ")
    if not all(0x30 <= digit <= 0x37 for digit in text):
        raise ArchiveError("the tar archive has a malformed number")
    return int(text or b"0", 8)


def _name(header: bytes) -> bytes:
    name, prefix = header[:100].split(b"\0")[0], b""
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _extension(kind: bytes, body: bytes) -> bytes:
    """Return the name that an extension gives the next member; empty when it gives none."""
    if len(body) > _MAX_EXTENSION_BYTES:
        raise ArchiveError("the tar archive has a header of over 64 KiB")
    if kind == _GNU_NAME:
        return body.split(b"\0")[0]
    records = _pax(body)
    for key in records:
        if key not in _PAX_IGNORED and key != b"path" and b"." not in key:
            raise ArchiveError(f"the tar archive has a header that is not served: {key[:40]!r}")
    if any(key.startswith(b"GNU.sparse") for key in records):
        raise ArchiveError("the tar archive has a sparse file")
    if kind == _PAX_GLOBAL and b"path" in records:
        raise ArchiveError("the tar archive names all its members alike")
    return records.get(b"path", b"")


def _pax(body: bytes) -> dict[bytes, bytes]:
    """Return the records `LENGTH KEY=VALUE\\n` of a pax header."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(body):
        digits, _, _ = body[at : at + 8].partition(b" ")
        if not digits.isdigit():
            raise ArchiveError("the tar archive has a malformed pax header")
        end = at + int(digits)
        record = body[at + len(digits) + 1 : end]
        key, equals, value = record.partition(b"=")
        if end > len(body) or not equals or not value.endswith(b"\n"):
            raise ArchiveError("the tar archive has a malformed pax header")
        records[key] = value[:-1]
        at = end
    return records

"""The manifest of a generation: all that its tree holds, and where each content lies.

It is written last and only where its number is free; what has no manifest was never kept. Its head
can be read alone: it says which packs must stay. Both parts are hostile until they were checked.
"""

import enum
import struct
from collections.abc import Sequence
from datetime import datetime

import msgspec

from handiwork.sandboxes.snapshots.packs import ChunkPlace
from handiwork.sandboxes.snapshots.sealing import ID_BYTES, DamagedError, Keys

MAGIC = b"HWSNAP1\n"
HEAD_BYTES = 8 * 1024 * 1024
BODY_BYTES = 512 * 1024 * 1024
MAX_ENTRIES = 500_000
MAX_DEPTH = 200
MAX_CHUNK_BYTES = 256 * 1024
MAX_FILE_BYTES = 1 << 50
MAX_XATTR_BYTES = 64 * 1024
IDS = 65_536


class Kind(enum.IntEnum):
    """What an entry is. WHITEOUT: a name of the lower that was deleted. LINK: one more name of a file."""

    DIRECTORY = 0
    FILE = 1
    SYMLINK = 2
    WHITEOUT = 3
    LINK = 4
    FIFO = 5


_KINDS = frozenset(int(kind) for kind in Kind)


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One name. `parent` and `link` are numbers of earlier entries; the first is the root.

    Owners are as seen inside. `extents` counts in fours: offset in the file, chunk, bytes of the
    chunk to skip, length; what no extent covers is a hole. `inode` 0: not to be recognised.
    """

    parent: int
    name: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0
    extents: tuple[int, ...] = ()
    target: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    link: int = -1
    linked: bool = False
    inode: int = 0
    ctime_ns: int = 0


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What a generation is. `skipped` names the first of what has no place in a snapshot."""

    tenant: str
    sandbox_id: str
    number: int
    created: datetime
    reason: str
    image: str
    tree: str
    started_ns: int
    entries: int
    content_bytes: int
    new_bytes: int
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0
    packs: tuple[bytes, ...] = ()
    pack_bytes: tuple[int, ...] = ()
    """The whole size of each, used or not."""


class Body(msgspec.Struct, frozen=True, kw_only=True):
    """The tree, parents before children, and the chunks it is made of."""

    chunks: tuple[ChunkPlace, ...]
    entries: list[Entry]


class Manifest(msgspec.Struct, frozen=True):
    """Head and body."""

    head: Head
    body: Body


def manifest_key(tenant: str, sandbox_id: str, number: int) -> str:
    """Return the blob of a generation's manifest."""
    return f"{tenant}/manifests/{sandbox_id}/{number:010d}"


def encode(manifest: Manifest, keys: Keys) -> bytes:
    """Return the blob of a manifest."""
    head = manifest.head
    place = manifest_key(head.tenant, head.sandbox_id, head.number)
    sealed = keys.seal_text(msgspec.msgpack.encode(head), f"the head of {place}")
    body = keys.seal_text(msgspec.msgpack.encode(manifest.body), f"the body of {place}")
    return MAGIC + struct.pack(">I", len(sealed)) + sealed + body


def decode(blob: bytes, place: str, keys: Keys) -> Manifest:
    """Return the manifest of a blob, checked; DamagedError says what is wrong."""
    head, end = _head(blob, place, keys)
    plain = keys.open_text(blob[end:], f"the body of {place}", BODY_BYTES)
    try:
        body = msgspec.msgpack.decode(plain, type=Body)
    except msgspec.DecodeError as error:
        raise DamagedError(f"the body of {place} is no manifest: {error}") from None
    check(head, body, place)
    return Manifest(head, body)


def decode_head(blob: bytes, place: str, keys: Keys) -> Head:
    """Return the head alone, from the beginning of the blob."""
    return _head(blob, place, keys)[0]


def _head(blob: bytes, place: str, keys: Keys) -> tuple[Head, int]:
    start = len(MAGIC) + 4
    if not blob.startswith(MAGIC) or len(blob) < start:
        raise DamagedError(f"{place} is no manifest, or is cut short")
    end = start + int(struct.unpack(">I", blob[len(MAGIC) : start])[0])
    if end > len(blob) or end > HEAD_BYTES:
        raise DamagedError(f"{place} is cut short")
    plain = keys.open_text(blob[start:end], f"the head of {place}", HEAD_BYTES)
    try:
        return msgspec.msgpack.decode(plain, type=Head), end
    except msgspec.DecodeError as error:
        raise DamagedError(f"the head of {place} is no head: {error}") from None


def check(head: Head, body: Body, place: str) -> None:
    """DamagedError unless the tree can be made without leaving its root."""
    try:
        _check(head, body)
    except ValueError as error:
        raise DamagedError(f"{place} is no tree: {error}") from None


def _check(head: Head, body: Body) -> None:
    entries = body.entries
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise ValueError(f"it has {len(entries)} entries; 1 to {MAX_ENTRIES} are a tree")
    if entries[0].kind != Kind.DIRECTORY:
        raise ValueError("its root is no directory")
    _check_chunks(head, body)
    depths = [0] * len(entries)
    names: set[tuple[int, bytes]] = set()
    for number, entry in enumerate(entries):
        if number:
            _check_name(number, entry, entries)
            depths[number] = depths[entry.parent] + 1
            if depths[number] > MAX_DEPTH:
                raise ValueError(f"entry {number} is deeper than {MAX_DEPTH}")
            names.add((entry.parent, entry.name))
        _check_entry(number, entry, body)
    if len(names) != len(entries) - 1:
        raise ValueError("two entries have one name")


def _check_chunks(head: Head, body: Body) -> None:
    if any(len(one) != ID_BYTES for one in head.packs) or len(head.pack_bytes) != len(head.packs):
        raise ValueError("its packs are none")
    for chunk in body.chunks:
        if not (0 <= chunk.pack < len(head.packs) and 0 < chunk.size <= MAX_CHUNK_BYTES):
            raise ValueError("a chunk lies in no pack, or is too large")
        if chunk.offset < 0 or chunk.stored <= 0:
            raise ValueError("a chunk has no place in its pack")


def _check_name(number: int, entry: Entry, entries: list[Entry]) -> None:
    if not 0 <= entry.parent < number or entries[entry.parent].kind != Kind.DIRECTORY:
        raise ValueError(f"entry {number} stands in no directory before it")
    name = entry.name
    if not 0 < len(name) <= 255 or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise ValueError(f"entry {number} has a name that no directory can hold")


def _check_entry(number: int, entry: Entry, body: Body) -> None:
    if entry.kind not in _KINDS:
        raise ValueError(f"entry {number} is of no kind")
    if not (0 <= entry.uid < IDS and 0 <= entry.gid < IDS and 0 <= entry.mode <= 0o7777):
        raise ValueError(f"entry {number} has an owner or a mode that there is not")
    if not 0 <= entry.size <= MAX_FILE_BYTES or len(entry.target) > 4095 or b"\0" in entry.target:
        raise ValueError(f"entry {number} has a size or a target that there is not")
    if entry.kind == Kind.LINK and not (
        0 <= entry.link < number
        and body.entries[entry.link].linked
        and body.entries[entry.link].kind != Kind.DIRECTORY
    ):
        raise ValueError(f"entry {number} is a name of no file before it")
    for name, value in entry.xattrs:
        if not 0 < len(name) <= 255 or b"\0" in name or len(value) > MAX_XATTR_BYTES:
            raise ValueError(f"entry {number} has an attribute that no file can have")
    if entry.extents:
        _check_extents(number, entry, body.chunks)


def _check_extents(number: int, entry: Entry, chunks: Sequence[ChunkPlace]) -> None:
    extents, count, end = entry.extents, len(chunks), 0
    if len(extents) % 4:
        raise ValueError(f"entry {number} has a broken extent")
    for at in range(0, len(extents), 4):
        offset, chunk, skip, length = extents[at : at + 4]
        if not 0 <= chunk < count or offset < end or skip < 0 or length <= 0:
            raise ValueError(f"entry {number} has an extent of no chunk")
        end = offset + length
        if skip + length > chunks[chunk].size or end > entry.size:
            raise ValueError(f"entry {number} has an extent past an end")


def path_of(entries: Sequence[Entry], number: int) -> bytes:
    """Return the absolute path of an entry inside."""
    parts = []
    while number > 0:
        parts.append(entries[number].name)
        number = entries[number].parent
    return b"/" + b"/".join(reversed(parts))

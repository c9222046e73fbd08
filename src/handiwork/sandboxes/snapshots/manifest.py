"""The manifest of a generation: all that its tree holds, and where each content lies.

It is written last and only where its number is free; what has no manifest was never kept. Its head
can be read alone: it says which packs must stay. Both parts are hostile until they were checked.
"""

import enum
import struct
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Annotated

import msgspec
from msgspec import Meta

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
MAX_NAME_BYTES = 255
MAX_TARGET_BYTES = 4095
IDS = 65_536
_NO_NAMES = frozenset((b"", b".", b".."))


class Kind(enum.IntEnum):
    """What an entry is. WHITEOUT: a name of the lower that was deleted. LINK: one more name of a file."""

    DIRECTORY = 0
    FILE = 1
    SYMLINK = 2
    WHITEOUT = 3
    LINK = 4
    FIFO = 5


_DIRECTORY, _LINK = int(Kind.DIRECTORY), int(Kind.LINK)
_Owner = Annotated[int, Meta(ge=0, lt=IDS)]
_Name = Annotated[bytes, Meta(max_length=MAX_NAME_BYTES)]
_Attribute = tuple[
    Annotated[bytes, Meta(min_length=1, max_length=MAX_NAME_BYTES)],
    Annotated[bytes, Meta(max_length=MAX_XATTR_BYTES)],
]


class Entry(msgspec.Struct, array_like=True, gc=False):
    """One name. `parent` and `link` are numbers of earlier entries; the first is the root.

    Owners are as seen inside. `extents` counts in fours: offset in the file, chunk, bytes of the
    chunk to skip, length; what no extent covers is a hole. `inode` 0: not to be recognised.

    The bounds of its types hold for one that was decoded: the decoder sees to them.
    """

    parent: int
    name: _Name
    kind: Annotated[int, Meta(ge=0, le=int(max(Kind)))]
    mode: Annotated[int, Meta(ge=0, le=0o7777)]
    uid: _Owner
    gid: _Owner
    mtime_ns: int
    size: Annotated[int, Meta(ge=0, le=MAX_FILE_BYTES)] = 0
    extents: tuple[Annotated[int, Meta(ge=0)], ...] = ()
    target: Annotated[bytes, Meta(max_length=MAX_TARGET_BYTES)] = b""
    xattrs: tuple[_Attribute, ...] = ()
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
    _check(head, body, place)
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


def _check(head: Head, body: Body, place: str) -> None:
    """DamagedError unless the tree, as it was decoded, can be made without leaving its root."""
    try:
        _check_all(head, body)
    except ValueError as error:
        raise DamagedError(f"{place} is no tree: {error}") from None


def _check_all(head: Head, body: Body) -> None:
    """Hundreds of thousands of entries are looked at: what can be asked of all at once is."""
    entries = body.entries
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise ValueError(f"it has {len(entries)} entries; 1 to {MAX_ENTRIES} are a tree")
    if entries[0].kind != _DIRECTORY:
        raise ValueError("its root is no directory")
    _check_chunks(head, body)
    _check_names(entries)
    sizes = [chunk.size for chunk in body.chunks]
    for number, entry in enumerate(entries):
        if entry.extents:
            _check_extents(number, entry, sizes)
        if entry.target and b"\0" in entry.target:
            raise ValueError(f"entry {number} has a target that there is not")
        if entry.kind == _LINK:
            _check_link(number, entry, entries)
        if entry.xattrs and any(b"\0" in name for name, _ in entry.xattrs):
            raise ValueError(f"entry {number} has an attribute that no file can have")


def _check_chunks(head: Head, body: Body) -> None:
    if any(len(one) != ID_BYTES for one in head.packs) or len(head.pack_bytes) != len(head.packs):
        raise ValueError("its packs are none")
    for chunk in body.chunks:
        if not (0 <= chunk.pack < len(head.packs) and 0 < chunk.size <= MAX_CHUNK_BYTES):
            raise ValueError("a chunk lies in no pack, or is too large")
        if chunk.offset < 0 or chunk.stored <= 0:
            raise ValueError("a chunk has no place in its pack")


def _check_names(entries: Sequence[Entry]) -> None:
    """Each stands in a directory before it, alone under its name."""
    depths = {0: 0}
    names: set[tuple[int, bytes]] = set()
    for number, entry in islice(enumerate(entries), 1, None):
        parent, name = entry.parent, entry.name
        if name in _NO_NAMES or b"/" in name or b"\0" in name:
            raise ValueError(f"entry {number} has a name that no directory can hold")
        depth = depths.get(parent)
        if depth is None:
            raise ValueError(f"entry {number} stands in no directory before it")
        if depth >= MAX_DEPTH:
            raise ValueError(f"entry {number} is deeper than {MAX_DEPTH}")
        if entry.kind == _DIRECTORY:
            depths[number] = depth + 1
        names.add((parent, name))
    if len(names) != len(entries) - 1:
        raise ValueError("two entries have one name")


def _check_link(number: int, entry: Entry, entries: Sequence[Entry]) -> None:
    link = entry.link
    if not 0 <= link < number or not entries[link].linked or entries[link].kind == _DIRECTORY:
        raise ValueError(f"entry {number} is a name of no file before it")


def _check_extents(number: int, entry: Entry, sizes: Sequence[int]) -> None:
    """Each is of four numbers, none below 0."""
    extents, count, end = entry.extents, len(sizes), 0
    if len(extents) % 4:
        raise ValueError(f"entry {number} has a broken extent")
    for at in range(0, len(extents), 4):
        offset, chunk, skip, length = extents[at : at + 4]
        if chunk >= count or offset < end or not length:
            raise ValueError(f"entry {number} has an extent of no chunk")
        end = offset + length
        if skip + length > sizes[chunk] or end > entry.size:
            raise ValueError(f"entry {number} has an extent past an end")


def path_of(entries: Sequence[Entry], number: int) -> bytes:
    """Return the absolute path of an entry inside."""
    parts = []
    while number > 0:
        parts.append(entries[number].name)
        number = entries[number].parent
    return b"/" + b"/".join(reversed(parts))

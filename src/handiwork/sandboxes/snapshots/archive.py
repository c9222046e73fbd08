"""One generation as one file, to be carried elsewhere: a small store of blobs with its own key.

What is in the file is sealed under a key that is in the file too: whoever has it can read it, and
whoever made it may be anybody. So it is read as any hostile manifest is, with limits of its own.
"""

import os
import re
import struct
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field

import msgspec

from handiwork.model.errors import ConfigError, NotFoundError, UnsupportedError
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.manifest import Body, Manifest, encode, manifest_key
from handiwork.sandboxes.snapshots.packs import (
    PACK_BYTES,
    ChunkPlace,
    Pack,
    PackReader,
    pack_key,
)
from handiwork.sandboxes.snapshots.sealing import ID_BYTES, KEY_BYTES, Keys, compressed
from handiwork.store.blobs import check_key

MAGIC, END = b"HWFILE1\n", b"HWFILE.\n"
TENANT = "file"
MAX_FILE_BYTES = 64 << 30
MAX_RECORDS = 20_000
MAX_PACK_BYTES = 2 * PACK_BYTES
MAX_MANIFEST_BYTES = 128 << 20
_RECORD = struct.Struct(">HQ")
_MANIFEST = re.compile(rf"{TENANT}/manifests/([a-z]{{2,12}}_[A-Za-z0-9]{{8,64}})/([0-9]{{10}})")


def exported(
    generations: Generations, manifest: Manifest, draw: Callable[[int], bytes]
) -> Generator[bytes, None, None]:
    """Yield a generation's file piece by piece; blocks, and raises DamagedError where it is damaged.

    A file that was cut short lacks its end, and its manifest.
    """
    root = draw(KEY_BYTES)
    yield MAGIC + root
    packing = _Packing(generations, manifest, Keys(root), draw)
    yield from packing.run()
    head = msgspec.structs.replace(
        manifest.head,
        tenant=TENANT,
        packs=tuple(packing.packs),
        pack_bytes=tuple(packing.pack_bytes),
    )
    chunks = tuple(packing.places[number] for number in range(len(manifest.body.chunks)))
    body = Body(chunks=chunks, entries=manifest.body.entries)
    key = manifest_key(TENANT, head.sandbox_id, head.number)
    yield _record(key, encode(Manifest(head, body), Keys(root)))
    yield END


@dataclass
class _Packing:
    """The chunks of a generation, opened and sealed anew, in the order in which they lie."""

    generations: Generations
    manifest: Manifest
    keys: Keys
    draw: Callable[[int], bytes]
    packs: list[bytes] = field(default_factory=list)
    pack_bytes: list[int] = field(default_factory=list)
    places: dict[int, ChunkPlace] = field(default_factory=dict)

    def run(self) -> Iterator[bytes]:
        chunks = self.manifest.body.chunks
        order = sorted(range(len(chunks)), key=lambda one: (chunks[one].pack, chunks[one].offset))
        source = self.generations
        reader = PackReader(source.blobs, source.keys, source.tenant)
        pack, size = None, 0
        for number in order:
            if pack is None:
                pack, size = Pack(self.keys, self.draw(ID_BYTES)), 0
                self.packs.append(pack.id)
            size += self._add(number, pack, reader)
            if size >= PACK_BYTES:
                yield self._full(pack)
                pack = None
        if pack is not None:
            yield self._full(pack)

    def _add(self, number: int, pack: Pack, reader: PackReader) -> int:
        place = self.manifest.body.chunks[number]
        pack_id = self.manifest.head.packs[place.pack]
        content = reader.chunk(pack_id, place, lambda: "it is exported")
        name = self.keys.name(content)
        offset, stored = pack.add(name, compressed(content))
        self.places[number] = ChunkPlace(name, len(self.packs) - 1, offset, stored, len(content))
        return stored

    def _full(self, pack: Pack) -> bytes:
        data = pack.data()
        self.pack_bytes.append(len(data))
        return _record(pack_key(TENANT, pack.id), data)


def _record(key: str, data: bytes) -> bytes:
    return _RECORD.pack(len(key), len(data)) + key.encode() + data


@dataclass(frozen=True)
class FileBlobs:
    """Implements the reading half of `store.blobs.Blobs` on an open file, which stays the caller's."""

    file: int
    places: dict[str, tuple[int, int]]

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """Return the bytes of a key."""
        if key not in self.places:
            raise NotFoundError(f"the file has no {key}")
        offset, size = self.places[key]
        return _read(self.file, offset, size if limit_bytes is None else min(size, limit_bytes))

    def list(self, prefix: str) -> Iterator[str]:
        """Yield every key below a prefix."""
        yield from [key for key in self.places if key.startswith(f"{prefix}/")]

    def put(self, key: str, data: bytes) -> None:
        """Refuse: it is read only."""
        raise UnsupportedError(f"{key}: an imported file is not written to")

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Refuse: it is read only."""
        raise UnsupportedError(f"{key}: an imported file is not written to")

    def delete(self, key: str) -> None:
        """Refuse: it is read only."""
        raise UnsupportedError(f"{key}: an imported file is not written to")


@dataclass(frozen=True)
class Opened:
    """A file of a generation: what it holds, the key in it, and which generation it is."""

    blobs: FileBlobs
    keys: Keys
    sandbox_id: str
    number: int


def opened(file: int, size: int) -> Opened:
    """Read what a file of a generation holds; ConfigError says what is wrong with it. Blocks."""
    if size > MAX_FILE_BYTES:
        raise ConfigError(f"the file is larger than {MAX_FILE_BYTES >> 30} GiB")
    start = len(MAGIC) + KEY_BYTES
    head, end = _read(file, 0, start), size - len(END)
    if not head.startswith(MAGIC):
        raise ConfigError("this is no file that `handiwork snapshot export` wrote")
    if end < start or _read(file, end, len(END)) != END:
        raise ConfigError("the file is cut short")
    places = _places(file, start, end)
    manifests = [found for key in places if (found := _MANIFEST.fullmatch(key))]
    if len(manifests) != 1:
        raise ConfigError(f"the file has {len(manifests)} manifests and not one")
    (found,) = manifests
    return Opened(FileBlobs(file, places), Keys(head[len(MAGIC) :]), found[1], int(found[2]))


def _places(file: int, at: int, end: int) -> dict[str, tuple[int, int]]:
    places: dict[str, tuple[int, int]] = {}
    while at < end:
        if len(places) >= MAX_RECORDS:
            raise ConfigError(f"the file has more than {MAX_RECORDS} records")
        head = _read(file, at, _RECORD.size)
        if len(head) < _RECORD.size:
            raise ConfigError("the file is cut short")
        key_bytes, size = _RECORD.unpack(head)
        at += _RECORD.size
        key = _key(_read(file, at, key_bytes))
        at += key_bytes
        limit = MAX_MANIFEST_BYTES if _MANIFEST.fullmatch(key) else MAX_PACK_BYTES
        if size > limit or at + size > end or key in places:
            raise ConfigError(
                f"the record {key} of the file is too long, cut short, or twice there"
            )
        places[key] = at, size
        at += size
    return places


def _key(found: bytes) -> str:
    try:
        return check_key(found.decode("ascii"))
    except ValueError:  # a decoding error is one
        raise ConfigError(f"the file has a record without a name: {found[:40]!r}") from None


def _read(file: int, offset: int, size: int) -> bytes:
    parts = []
    while size > 0 and (part := os.pread(file, min(size, 1 << 24), offset)):
        parts.append(part)
        offset, size = offset + len(part), size - len(part)
    return b"".join(parts)


def check_size(body: Body, limit_bytes: int) -> None:
    """ConfigError when what a tree would write is more than a limit, however few chunks it is made of."""
    total = 0
    for entry in body.entries:
        total += sum(entry.extents[3::4]) + len(entry.target)
        if total > limit_bytes:
            raise ConfigError(
                f"the tree is larger than {limit_bytes >> 20} MiB, the sandbox's limit on disk"
            )

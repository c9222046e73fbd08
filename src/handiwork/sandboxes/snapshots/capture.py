"""Taking a generation: the tree is walked, new contents are packed, the manifest is written last."""

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from handiwork.model.errors import ConflictError
from handiwork.sandboxes.snapshots.contents import Contents
from handiwork.sandboxes.snapshots.manifest import (
    Body,
    Entry,
    Head,
    Kind,
    Manifest,
    encode,
    manifest_key,
    path_of,
)
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.sealing import Keys
from handiwork.sandboxes.snapshots.walk import DIRECTORY, Walk
from handiwork.store.blobs import Blobs

RACY_NS = 2_000_000_000
"""A file that changed so shortly before a walk may change again under the same time."""
SPARSE_BLOCKS = 8
LEAST_USE = 0.25
"""A pack of which a generation uses less is not relied on: what is needed of it is kept anew."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What generation to take. `tree` names this very tree, so that its inodes may be compared."""

    tenant: str
    sandbox_id: str
    number: int
    reason: str
    image: str
    tree: str
    upper: Path
    ids: Range
    excluded: frozenset[str] = frozenset()


def _goes_on() -> None:
    """Wait for nobody once the tree was read."""


@dataclass
class Capture:
    """One taking, in a thread: `stop` from another ends it with an error and without a manifest.

    `walked` is called when all of the tree was read, before anything counts as kept; what it raises
    ends the taking.
    """

    blobs: Blobs
    keys: Keys
    clock: Callable[[], datetime]
    draw: Callable[[int], bytes]
    stop: threading.Event = field(default_factory=threading.Event)
    walked: Callable[[], None] = _goes_on

    def take(self, wanted: Wanted, former: Manifest | None) -> Manifest:
        """Take a generation and return its manifest, kept durably.

        ConflictError when its number is taken; SandboxUnavailableError when it cannot be taken.
        """
        started_ns = int(self.clock().timestamp() * 1e9)
        contents = Contents(self.blobs, self.keys, wanted.tenant, self.draw)
        try:
            memory = _Memory(former, wanted.tree, contents)
            walk = self._walk(wanted, contents, memory)
            self.walked()
            contents.finish()
        finally:
            contents.close()
        manifest = _manifest(wanted, walk, contents, self.clock(), started_ns)
        key = manifest_key(wanted.tenant, wanted.sandbox_id, wanted.number)
        if not self.blobs.put_if_absent(key, encode(manifest, self.keys)):
            raise ConflictError(
                f"generation {wanted.number} of {wanted.sandbox_id} is there already:"
                " another one took it"
            )
        return manifest

    def _walk(self, wanted: Wanted, contents: Contents, memory: "_Memory") -> Walk:
        def read(number: int, file: int, facts: os.stat_result) -> None:
            sparse = facts.st_blocks * 512 < facts.st_size - 512 * SPARSE_BLOCKS
            entry = walk.entries[number]
            contents.read(entry, file, facts.st_size, sparse=sparse)
            after = os.fstat(file)
            if (after.st_ctime_ns, after.st_size) != (facts.st_ctime_ns, entry.size):
                entry.inode = 0

        walk = Walk(
            ids=wanted.ids,
            excluded=frozenset(os.fsencode(path) for path in wanted.excluded),
            read=read,
            known=memory.known,
            stopped=self.stop.is_set,
        )
        root = os.open(wanted.upper, DIRECTORY)
        try:
            walk.run(root)
        finally:
            os.close(root)
        return walk


class _Memory:
    """What a former generation knows: chunks by name, and files of the same tree by inode and time."""

    def __init__(self, former: Manifest | None, tree: str, contents: Contents) -> None:
        self._files: dict[bytes, Entry] = {}
        if former is None:
            return
        usable = _usable_packs(former)
        numbers: dict[int, int] = {}
        contents.packs.extend(former.head.packs)
        contents.pack_bytes.extend(former.head.pack_bytes)
        for number, place in enumerate(former.body.chunks):
            if place.pack in usable:
                numbers[number] = len(contents.places)
                contents.known[place.name] = len(contents.places)
                contents.places.append(place)
        if former.head.tree != tree:
            return
        racy_ns = former.head.started_ns - RACY_NS
        for index, entry in enumerate(former.body.entries):
            if entry.kind != Kind.FILE or not entry.inode or entry.ctime_ns >= racy_ns:
                continue
            if all(chunk in numbers for chunk in entry.extents[1::4]):
                moved = list(entry.extents)
                moved[1::4] = [numbers[chunk] for chunk in entry.extents[1::4]]
                entry.extents = tuple(moved)
                self._files[path_of(former.body.entries, index)] = entry

    def known(self, path: bytes, facts: os.stat_result) -> Entry | None:
        entry = self._files.get(path)
        if entry is None:
            return None
        same = (entry.inode, entry.ctime_ns, entry.size, entry.mtime_ns)
        now = (facts.st_ino, facts.st_ctime_ns, facts.st_size, facts.st_mtime_ns)
        return entry if same == now else None


def _usable_packs(former: Manifest) -> set[int]:
    """Return the packs of which enough is used; the others would be kept for a few chunks."""
    used = [0] * len(former.head.packs)
    for place in former.body.chunks:
        used[place.pack] += place.stored
    whole = former.head.pack_bytes
    return {n for n, size in enumerate(whole) if used[n] >= LEAST_USE * size}


def _manifest(
    wanted: Wanted, walk: Walk, contents: Contents, now: datetime, started_ns: int
) -> Manifest:
    """Return the manifest, with the chunks and packs that its tree uses and no others."""
    chunks: dict[int, int] = {}
    for entry in walk.entries:
        if entry.extents:
            extents = list(entry.extents)
            extents[1::4] = [chunks.setdefault(each, len(chunks)) for each in extents[1::4]]
            entry.extents = tuple(extents)
    packs: dict[int, int] = {}
    places = []
    for number in chunks:
        place = contents.places[number]
        pack = packs.setdefault(place.pack, len(packs))
        kept = type(place)(place.name, pack, place.offset, place.stored, place.size)
        places.append(kept)
    head = Head(
        tenant=wanted.tenant,
        sandbox_id=wanted.sandbox_id,
        number=wanted.number,
        created=now,
        reason=wanted.reason,
        image=wanted.image,
        tree=wanted.tree,
        started_ns=started_ns,
        entries=len(walk.entries),
        content_bytes=sum(entry.size for entry in walk.entries),
        new_bytes=contents.new_bytes,
        skipped=tuple(walk.skipped),
        skipped_count=walk.skipped_count,
        packs=tuple(contents.packs[number] for number in packs),
        pack_bytes=tuple(contents.pack_bytes[number] for number in packs),
    )
    return Manifest(head, Body(chunks=tuple(places), entries=walk.entries))

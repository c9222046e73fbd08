"""Taking a generation: the tree is walked, new contents are packed, the manifest is written last."""

import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from handiwork.model.errors import ConflictError, SandboxUnavailableError
from handiwork.sandboxes.snapshots.contents import Contents
from handiwork.sandboxes.snapshots.former import Former, forget_times, renumber
from handiwork.sandboxes.snapshots.manifest import (
    Body,
    Entry,
    Head,
    Manifest,
    encode,
    manifest_key,
)
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.sealing import Keys
from handiwork.sandboxes.snapshots.walk import DIRECTORY, Walk
from handiwork.sandboxes.trees import flush_filesystem, writes_back
from handiwork.store.blobs import Blobs

SPARSE_BLOCKS = 8


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What generation to take. `tree` names this very tree, so that its inodes may be compared.

    `below` are layers that `upper` lies on and takes away from, topmost first; nobody changes them.
    `lower` is an open descriptor of the image's root, where there are such.
    """

    tenant: str
    sandbox_id: str
    number: int
    reason: str
    image: str
    tree: str
    upper: Path
    ids: Range
    excluded: frozenset[str] = frozenset()
    below: tuple[Path, ...] = ()
    lower: int | None = None


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
        with ThreadPoolExecutor(1, thread_name_prefix="snapshot-flush") as flushing:
            flushed = flushing.submit(_flush, wanted.upper)
            try:
                known = Former(former, wanted.tree, contents)
                walk = self._walk(wanted, contents, known)
                # Whoever is held still goes on only then: what is written unseen before it is never seen.
                if not flushed.result():
                    forget_times(walk.entries)
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

    def _walk(self, wanted: Wanted, contents: Contents, former: Former) -> Walk:
        def read(entry: Entry, file: int, facts: os.stat_result) -> None:
            sparse = facts.st_blocks * 512 < facts.st_size - 512 * SPARSE_BLOCKS
            contents.read(entry, file, facts.st_size, sparse=sparse)

        walk = Walk(
            ids=wanted.ids,
            excluded=frozenset(os.fsencode(path) for path in wanted.excluded),
            read=read,
            known=former.known,
            stopped=self.stop.is_set,
        )
        with contextlib.ExitStack() as opened:

            def root(path: Path) -> int:
                directory = os.open(path, DIRECTORY)
                opened.callback(os.close, directory)
                return directory

            below = [root(path) for path in wanted.below]
            walk.run(root(wanted.upper), *below, image=wanted.lower)
        return walk


def _flush(upper: Path) -> bool:
    """Have the tree's file system see the next write to each page; False where it never would.

    A page that was written to through a mapping stays writable until it is written back: later
    writes change no time until then. When all is clean, the next one is a fault, which changes it.
    """
    if not writes_back(upper):
        return False
    try:
        flush_filesystem(upper)
    except OSError as error:
        raise SandboxUnavailableError(
            f"no snapshot: the disk below {upper} does not take what was written: {error.strerror}"
        ) from None
    return True


def _manifest(
    wanted: Wanted, walk: Walk, contents: Contents, now: datetime, started_ns: int
) -> Manifest:
    """Return the manifest, with the chunks and packs that its tree uses and no others."""
    used = {number for entry in walk.entries for number in entry.extents[1::4]}
    chunks = {number: index for index, number in enumerate(sorted(used))}
    if len(used) < len(contents.places):
        for entry in walk.entries:
            renumber(entry, chunks)
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

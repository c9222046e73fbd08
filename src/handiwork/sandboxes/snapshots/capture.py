"""Taking a generation: the tree is walked, new contents are packed, the manifest is written last."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from handiwork.model.errors import ConflictError
from handiwork.sandboxes.snapshots.contents import Contents
from handiwork.sandboxes.snapshots.former import Former, forget_times, renumber
from handiwork.sandboxes.snapshots.listing import Listing, Rules
from handiwork.sandboxes.snapshots.manifest import (
    Body,
    Head,
    Manifest,
    encode,
    manifest_key,
)
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.protocol import Tree
from handiwork.sandboxes.snapshots.sealing import Keys
from handiwork.store.blobs import Blobs


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What generation to take, of which files. `tree` names them, so that their inodes may be compared."""

    tenant: str
    sandbox_id: str
    number: int
    reason: str
    image: str
    tree: str
    files: Tree
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
        with ThreadPoolExecutor(1, thread_name_prefix="snapshot-flush") as flushing:
            flushed = flushing.submit(wanted.files.flush)
            try:
                known = Former(former, wanted.tree, contents)
                listing = wanted.files.listed(self._rules(wanted, known), contents.read)
                # Whoever is held still goes on only then: what is written unseen before it is never seen.
                if not flushed.result():
                    forget_times(listing.entries)
                self.walked()
                contents.finish()
            finally:
                contents.close()
        manifest = _manifest(wanted, listing, contents, self.clock(), started_ns)
        key = manifest_key(wanted.tenant, wanted.sandbox_id, wanted.number)
        if not self.blobs.put_if_absent(key, encode(manifest, self.keys)):
            raise ConflictError(
                f"generation {wanted.number} of {wanted.sandbox_id} is there already:"
                " another one took it"
            )
        return manifest

    def _rules(self, wanted: Wanted, former: Former) -> Rules:
        return Rules(
            ids=wanted.ids,
            excluded=frozenset(os.fsencode(path) for path in wanted.excluded),
            known=former.known,
            stopped=self.stop.is_set,
        )


def _manifest(
    wanted: Wanted, listing: Listing, contents: Contents, now: datetime, started_ns: int
) -> Manifest:
    """Return the manifest, with the chunks and packs that its tree uses and no others."""
    used = {number for entry in listing.entries for number in entry.extents[1::4]}
    chunks = {number: index for index, number in enumerate(sorted(used))}
    if len(used) < len(contents.places):
        for entry in listing.entries:
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
        entries=len(listing.entries),
        content_bytes=sum(entry.size for entry in listing.entries),
        new_bytes=contents.new_bytes,
        skipped=tuple(listing.skipped),
        skipped_count=listing.skipped_count,
        packs=tuple(contents.packs[number] for number in packs),
        pack_bytes=tuple(contents.pack_bytes[number] for number in packs),
    )
    return Manifest(head, Body(chunks=tuple(places), entries=listing.entries))

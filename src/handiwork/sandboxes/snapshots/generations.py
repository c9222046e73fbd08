"""The generations of sandboxes in one store of blobs: taken, listed, read, made again.

The blobs are the truth: what they hold can be told without any database. Every call blocks.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from handiwork.model.errors import NotFoundError
from handiwork.sandboxes.snapshots.capture import Capture, Wanted
from handiwork.sandboxes.snapshots.comparing import Comparison
from handiwork.sandboxes.snapshots.diff import Difference, differences
from handiwork.sandboxes.snapshots.manifest import (
    HEAD_BYTES,
    Entry,
    Head,
    Manifest,
    decode,
    decode_head,
    manifest_key,
)
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.packs import PackReader
from handiwork.sandboxes.snapshots.restore import Restore
from handiwork.sandboxes.snapshots.sealing import DamagedError, Keys
from handiwork.store.blobs import Blobs


@dataclass(frozen=True)
class Generations:
    """All generations of a tenant. `draw` gives random bytes."""

    blobs: Blobs
    keys: Keys
    tenant: str
    clock: Callable[[], datetime]
    draw: Callable[[int], bytes]

    def numbers(self, sandbox_id: str) -> list[int]:
        """Return the numbers that are taken, the newest first; one may be damaged."""
        prefix = manifest_key(self.tenant, sandbox_id, 0).rpartition("/")[0]
        names = (key.rpartition("/")[2] for key in self.blobs.list(prefix))
        return sorted((int(name) for name in names if name.isdecimal()), reverse=True)

    def all_numbers(self) -> dict[str, list[int]]:
        """Return the numbers that are taken of each sandbox, in no order; one may be damaged."""
        found: dict[str, list[int]] = {}
        for key in self.blobs.list(f"{self.tenant}/manifests"):
            sandbox_id, name = key.split("/")[-2:]
            if name.isdecimal() and key == manifest_key(self.tenant, sandbox_id, int(name)):
                found.setdefault(sandbox_id, []).append(int(name))
        return found

    def head(self, sandbox_id: str, number: int) -> Head:
        """Tell of one generation; NotFoundError, or DamagedError that names it."""
        key = manifest_key(self.tenant, sandbox_id, number)
        return decode_head(self.blobs.get(key, limit_bytes=HEAD_BYTES), key, self.keys)

    def load(self, sandbox_id: str, number: int) -> Manifest:
        """Return one generation's manifest; NotFoundError, or DamagedError that names it."""
        key = manifest_key(self.tenant, sandbox_id, number)
        return decode(self.blobs.get(key), key, self.keys)

    def differences(
        self,
        sandbox_id: str,
        before: int,
        after: int,
        *,
        below: bytes = b"",
        limit: int | None = None,
        stop: threading.Event | None = None,
    ) -> list[Difference]:
        """Return what differs between two generations, below a path, the first ones; see `Comparison`.

        NotFoundError, or DamagedError.
        """
        old, new = self.load(sandbox_id, before), self.load(sandbox_id, after)
        reader = PackReader(self.blobs, self.keys, self.tenant)
        compared = Comparison(reader, old, new, stop)
        return differences(old.body, new.body, compared.differing, below=below, limit=limit)

    def take(
        self,
        wanted: Wanted,
        former: Manifest | None,
        stop: threading.Event,
        walked: Callable[[], None] | None = None,
    ) -> Manifest:
        """Take a generation; see `Capture`."""
        capture = Capture(self.blobs, self.keys, self.clock, self.draw, stop)
        if walked is not None:
            capture.walked = walked
        return capture.take(wanted, former)

    def forget(self, sandbox_id: str, number: int) -> None:
        """Delete a generation's manifest: its packs are left to who looks for unused ones."""
        self.blobs.delete(manifest_key(self.tenant, sandbox_id, number))

    def newest(self, sandbox_id: str) -> tuple[int, Manifest | None]:
        """Return the next free number, and the newest generation to compare with, if it reads.

        For taking only: a damaged one makes the next one larger, and is never passed over in silence
        when a tree is to be made.
        """
        numbers = self.numbers(sandbox_id)
        if not numbers:
            return 1, None
        try:
            return numbers[0] + 1, self.load(sandbox_id, numbers[0])
        except (DamagedError, NotFoundError):
            return numbers[0] + 1, None

    def make(
        self, manifest: Manifest, ids: Range, place: int, name: str, stop: threading.Event
    ) -> list[Entry]:
        """Make a generation's tree as `name` in an open directory and return what it holds; see `Restore`."""
        reader = PackReader(self.blobs, self.keys, self.tenant)
        Restore(manifest, reader, ids, place, name, stop).run()
        return manifest.body.entries

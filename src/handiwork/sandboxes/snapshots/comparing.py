"""Whether files hold the same bytes in two generations that have them in other chunks.

Small files are cut together: where a neighbour changed, an unchanged one lies in another chunk. So the
chunks are read. Whoever is inside decides in how many packs they lie: of what is to be compared, each pack
is read once, in the order of packs, and all of them together up to a limit.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import NamedTuple

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.snapshots.diff import Pair
from handiwork.sandboxes.snapshots.listing import shown
from handiwork.sandboxes.snapshots.manifest import Entry, Manifest
from handiwork.sandboxes.snapshots.packs import PackReader

MAX_READ_BYTES = 4 << 30
"""Of packs, for one comparison."""
MOST_STRETCHES = 100_000
"""Compared at one time, for each takes memory; what is more is compared after, and may read a pack again."""

HOLE = -1
_Run = tuple[int, int, int, int]
"""Start and end in the file, the chunk or HOLE, and where in the file the chunk would begin."""


class _Stretch(NamedTuple):
    """A part of a file that lies in one run of both generations."""

    path: bytes
    start: int
    end: int
    former: _Run
    present: _Run


class _Read(NamedTuple):
    """One side of a stretch, which is a number in the list of them."""

    pack: int
    offset: int
    stretch: int
    side: int


class Comparison:
    """Two generations, whose chunks a reader has; each call blocks."""

    def __init__(
        self,
        reader: PackReader,
        before: Manifest,
        after: Manifest,
        stop: threading.Event | None = None,
    ) -> None:
        """It gives up when `stop` is set."""
        self._sides = (before, after)
        every = dict.fromkeys((*before.head.packs, *after.head.packs))
        self._order = {pack: number for number, pack in enumerate(every)}
        self._chunks = _Chunks(reader, stop or threading.Event())

    def differing(self, pairs: Iterable[Pair]) -> set[bytes]:
        """Return the paths of those that differ; DamagedError where a chunk does not read.

        UnsupportedError: too much would have to be read.
        """
        found: set[bytes] = set()
        stretches = self._stretches(pairs, found)
        while some := list(islice(stretches, MOST_STRETCHES)):
            self._compare(some, found)
        return found

    def _stretches(self, pairs: Iterable[Pair], found: set[bytes]) -> Iterator[_Stretch]:
        for path, old, new in pairs:
            if old.size != new.size:
                found.add(path)
                continue
            for start, end, former, present in _side_by_side(old, new):
                if path in found:
                    break
                if not self._is_one(former, present):
                    yield _Stretch(path, start, end, former, present)

    def _is_one(self, former: _Run, present: _Run) -> bool:
        """Say whether both are holes, or the same place of the same chunk: nothing is read for these."""
        if HOLE in (former[2], present[2]):
            return former[2] == present[2]
        names = [
            side.body.chunks[run[2]].name
            for side, run in zip(self._sides, (former, present), strict=True)
        ]
        return names[0] == names[1] and former[3] == present[3]

    def _compare(self, stretches: Sequence[_Stretch], found: set[bytes]) -> None:
        """Add the paths that differ: both sides of each are summed up, wherever in the order they come."""
        sums = {
            number: _sum(bytes(one.end - one.start))
            for number, one in enumerate(stretches)
            if HOLE in (one.former[2], one.present[2])
        }
        for read in sorted(self._reads(stretches)):
            path, start, end, *runs = stretches[read.stretch]
            if path in found:
                continue
            _, _, number, begins = runs[read.side]
            content = self._chunks.read(path, self._sides[read.side], number)
            summed = _sum(content[start - begins : end - begins])
            if sums.setdefault(read.stretch, summed) != summed:
                found.add(path)

    def _reads(self, stretches: Sequence[_Stretch]) -> Iterator[_Read]:
        for at, one in enumerate(stretches):
            for side, run in enumerate((one.former, one.present)):
                if run[2] != HOLE:
                    manifest = self._sides[side]
                    place = manifest.body.chunks[run[2]]
                    pack = self._order[manifest.head.packs[place.pack]]
                    yield _Read(pack, place.offset, at, side)


class _Chunks:
    """Reads chunks, one pack after the other. The last is kept: many small files are in one."""

    def __init__(self, reader: PackReader, stop: threading.Event) -> None:
        self._reader = reader
        self._stop = stop
        self._read_bytes = 0
        self._pack = b""
        self._name = b""
        self._content = memoryview(b"")

    def read(self, path: bytes, manifest: Manifest, number: int) -> memoryview:
        """Return the content of a chunk; `path` is whose it is."""
        if self._stop.is_set():
            raise SandboxUnavailableError("it was stopped")
        head, place = manifest.head, manifest.body.chunks[number]
        pack = head.packs[place.pack]
        if pack != self._pack:
            self._allow(path, head.pack_bytes[place.pack])
            self._pack, self._name = pack, b""
        if place.name != self._name:
            content = self._reader.chunk(
                pack, place, lambda: f"{shown(path)} of snapshot {head.number} of {head.sandbox_id}"
            )
            self._name, self._content = place.name, memoryview(content)
        return self._content

    def _allow(self, path: bytes, size: int) -> None:
        self._read_bytes += size
        if self._read_bytes > MAX_READ_BYTES:
            raise UnsupportedError(
                f"more than {MAX_READ_BYTES >> 20} MiB of the store would have to be read to compare what"
                f" files hold that show the same size and time in both snapshots; {shown(path)} is not"
                " compared yet. Give a path, to compare only what is below it"
            )


def _sum(content: bytes | memoryview) -> bytes:
    return blake2b(content, digest_size=32).digest()


def _side_by_side(old: Entry, new: Entry) -> Iterator[tuple[int, int, _Run, _Run]]:
    """Yield stretches, ascending, each of which lies in one run of both; the sizes are the same."""
    formers, presents = _runs(old), _runs(new)
    former, present = next(formers, None), next(presents, None)
    while former is not None and present is not None:
        end = min(former[1], present[1])
        yield max(former[0], present[0]), end, former, present
        if former[1] == end:
            former = next(formers, None)
        if present[1] == end:
            present = next(presents, None)


def _runs(entry: Entry) -> Iterator[_Run]:
    """Yield what a file is made of, its holes too, from its beginning to its end."""
    at = 0
    for first in range(0, len(entry.extents), 4):
        offset, chunk, skip, length = entry.extents[first : first + 4]
        if offset > at:
            yield at, offset, HOLE, 0
        at = offset + length
        yield offset, at, chunk, offset - skip
    if at < entry.size:
        yield at, entry.size, HOLE, 0

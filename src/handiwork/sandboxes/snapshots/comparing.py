"""Whether a file holds the same bytes in two generations that have it in other chunks.

Small files are cut together: where a neighbour changed, an unchanged one lies in another chunk. So the
chunks are read, and no further than to the first byte that differs.
"""

from collections.abc import Iterator

from handiwork.sandboxes.snapshots.listing import shown
from handiwork.sandboxes.snapshots.manifest import Entry, Manifest
from handiwork.sandboxes.snapshots.packs import PackReader

HOLE = -1
_Run = tuple[int, int, int, int]
"""Start and end in the file, the chunk or HOLE, and where in the file the chunk would begin."""


class Comparison:
    """Two generations, whose chunks a reader has; each call blocks."""

    def __init__(self, reader: PackReader, before: Manifest, after: Manifest) -> None:
        self._before = _Side(reader, before)
        self._after = _Side(reader, after)

    def is_same(self, path: bytes, old: Entry, new: Entry) -> bool:
        """Compare a file of both; DamagedError where a chunk does not read."""
        if old.size != new.size:
            return False
        for start, end, former, present in _side_by_side(old, new):
            if former[2] == present[2] == HOLE:
                continue
            ours = self._before.read(path, former, start, end)
            if ours != self._after.read(path, present, start, end):
                return False
        return True


class _Side:
    """One generation. The chunk that was read last is kept: many small files are in one."""

    def __init__(self, reader: PackReader, manifest: Manifest) -> None:
        self._reader = reader
        self._manifest = manifest
        self._number = HOLE
        self._content = b""

    def read(self, path: bytes, run: _Run, start: int, end: int) -> memoryview:
        """Return a stretch of a file that lies in one run."""
        _, _, number, begins = run
        if number == HOLE:
            return memoryview(bytes(end - start))
        if number != self._number:
            self._content = self._chunk(path, number)
            self._number = number
        return memoryview(self._content)[start - begins : end - begins]

    def _chunk(self, path: bytes, number: int) -> bytes:
        head, place = self._manifest.head, self._manifest.body.chunks[number]
        return self._reader.chunk(
            head.packs[place.pack],
            place,
            lambda: f"{shown(path)} of snapshot {head.number} of {head.sandbox_id}",
        )


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

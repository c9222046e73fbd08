"""Contents of files to sealed packs: cut, named, and kept once, by two threads and in bounded memory.

Small files are cut together, for one chunk holds many of them; a large one is cut alone.
"""

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from handiwork.sandboxes.snapshots.chunks import cuts
from handiwork.sandboxes.snapshots.manifest import Entry
from handiwork.sandboxes.snapshots.packs import PACK_BYTES, ChunkPlace, Pack, pack_key
from handiwork.sandboxes.snapshots.sealing import ID_BYTES, Compressor, Keys
from handiwork.store.blobs import Blobs

WINDOW_BYTES = 4 * 1024 * 1024
SMALL_BYTES = 128 * 1024
THREADS = 2
MAX_WAITING = 4
"""Windows, and as many packs, that are held at once."""
MAX_SEGMENTS = 4096
"""Data between holes of one file; what comes after counts as data whole."""
SPARSE_BLOCKS = 8


class Content(Protocol):
    """What one file holds."""

    @property
    def size(self) -> int:
        """How many bytes, with its holes."""
        ...

    @property
    def is_sparse(self) -> bool:
        """Whether it is worth it to ask where it has data."""
        ...

    def read(self, size: int, offset: int) -> bytes:
        """Return as much as there is of `size` bytes."""
        ...

    def segments(self) -> Iterator[tuple[int, int]]:
        """Yield where it has data, ascending: start and end."""
        ...


class OpenFile:
    """The content of a file that is open, of which these facts were told."""

    def __init__(self, descriptor: int, facts: os.stat_result) -> None:
        self.descriptor = descriptor
        self.size = facts.st_size
        self.is_sparse = facts.st_blocks * 512 < facts.st_size - 512 * SPARSE_BLOCKS

    def read(self, size: int, offset: int) -> bytes:
        """Return as much as there is of `size` bytes."""
        content = os.pread(self.descriptor, size, offset)
        while 0 < len(content) < size:
            more = os.pread(self.descriptor, size - len(content), offset + len(content))
            if not more:
                break
            content += more
        return content

    def segments(self) -> Iterator[tuple[int, int]]:
        """Yield where it has data, as far as the file system knows."""
        at = 0
        for _ in range(MAX_SEGMENTS):
            try:
                start = os.lseek(self.descriptor, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            at = min(os.lseek(self.descriptor, start, os.SEEK_HOLE), self.size)
            if start >= self.size or at <= start:
                return
            yield start, at
        yield at, self.size


_Cut = tuple[int, int]
_Span = tuple[Entry, int, int, int]
"""Whose bytes of a window they are: entry, offset in the file, offset in the window, length."""
_Filled = list[tuple[Entry, tuple[int, ...]]]


@dataclass
class _Small:
    """Small files that are going to be cut as one window."""

    parts: list[bytes] = field(default_factory=list)
    spans: list[_Span] = field(default_factory=list)
    size: int = 0


class Contents:
    """Takes contents in and fills the entries' extents, when `finish` was called; `close` ends it.

    `known` are chunks that the store has, by name; `places` begins with theirs and grows.
    """

    def __init__(self, blobs: Blobs, keys: Keys, tenant: str, draw: Callable[[int], bytes]) -> None:
        self._blobs = blobs
        self._keys = keys
        self._tenant = tenant
        self._draw = draw
        self.places: list[ChunkPlace] = []
        self.packs: list[bytes] = []
        self.pack_bytes: list[int] = []
        self.known: dict[bytes, int] = {}
        self.new_bytes = 0
        self._small = _Small()
        self._pack: Pack | None = None
        self._lock = threading.Lock()
        self._room = threading.Semaphore(MAX_WAITING)
        self._cutting = ThreadPoolExecutor(THREADS, thread_name_prefix="snapshot-cut")
        self._putting = ThreadPoolExecutor(1, thread_name_prefix="snapshot-put")
        self._cut: deque[Future[_Filled]] = deque()
        self._put: list[Future[None]] = []

    def close(self) -> None:
        """End its threads; what waits is dropped."""
        self._cutting.shutdown(cancel_futures=True)
        self._putting.shutdown(cancel_futures=True)

    def read(self, entry: Entry, content: Content) -> None:
        """Take a file's content in."""
        entry.size = size = content.size
        if size <= SMALL_BYTES and not content.is_sparse:
            self._read_small(entry, content, size)
            return
        for start, end in content.segments() if content.is_sparse else [(0, size)]:
            entry.size = min(entry.size, self._read_large(entry, content, start, end))

    def finish(self) -> None:
        """Wait until all is cut and kept; raises what failed first."""
        self._cut_small()
        while self._cut:
            _fill(self._cut.popleft().result())
        if self._pack is not None:
            self._put_later(self._pack)
            self._pack = None
        for task in self._put:
            task.result()

    def _read_small(self, entry: Entry, content: Content, size: int) -> None:
        data = content.read(size, 0) if size else b""
        entry.size = length = len(data)
        if length:
            small = self._small
            small.parts.append(data)
            small.spans.append((entry, 0, small.size, length))
            small.size += length
            if small.size >= WINDOW_BYTES:
                self._cut_small()

    def _cut_small(self) -> None:
        small, self._small = self._small, _Small()
        if small.size:
            self._keep_later(b"".join(small.parts), small.spans, None)

    def _read_large(self, entry: Entry, content: Content, start: int, end: int) -> int:
        """Take one stretch in; return the file's end, which is nearer where it was cut short."""
        tail: bytes | memoryview = b""
        at = start
        while at < end:
            read = content.read(min(WINDOW_BYTES, end - at), at)
            last = not read or at + len(read) == end
            data = b"".join((tail, read))
            offset = at - len(tail)
            at += len(read)
            found = list(cuts(data, last=last))
            taken = found[-1][0] + found[-1][1] if found else 0
            if found:
                self._keep_later(data, [(entry, offset, 0, taken)], found)
            tail = memoryview(data)[taken:]
            if not read:
                return at
        return max(end, entry.size)

    def _keep_later(self, data: bytes, spans: list[_Span], found: list[_Cut] | None) -> None:
        """Leave a window to a thread, which cuts it where that was not done."""
        while self._cut and self._cut[0].done():
            _fill(self._cut.popleft().result())
        self._room.acquire()
        self._cut.append(self._cutting.submit(self._keep, data, spans, found))

    def _keep(self, data: bytes, spans: list[_Span], found: list[_Cut] | None) -> _Filled:
        try:
            if found is None:
                found = list(cuts(data, last=True))
            return list(_extents(spans, found, self._chunks(memoryview(data), found)))
        finally:
            self._room.release()

    def _chunks(self, data: memoryview, found: list[_Cut]) -> list[int]:
        """Return the numbers of a window's chunks; those that are new are kept."""
        names = [self._keys.name(data[at : at + length]) for at, length in found]
        compressed = Compressor().compressed
        new: dict[bytes, tuple[bytes, int]] = {}
        for name, (at, length) in zip(names, found, strict=True):
            if name not in self.known and name not in new:
                new[name] = compressed(data[at : at + length]), length
        with self._lock:
            for name, (packed, length) in new.items():
                if name not in self.known:
                    self._add(name, packed, length)
            return [self.known[name] for name in names]

    def _add(self, name: bytes, packed: bytes, size: int) -> None:
        if self._pack is None:
            self._pack = Pack(self._keys, self._draw(ID_BYTES))
            self.packs.append(self._pack.id)
            self.pack_bytes.append(0)
        offset, stored = self._pack.add(name, packed)
        self.known[name] = len(self.places)
        self.places.append(ChunkPlace(name, len(self.packs) - 1, offset, stored, size))
        if self._pack.size >= PACK_BYTES:
            self._put_later(self._pack)
            self._pack = None

    def _put_later(self, pack: Pack) -> None:
        """Hand a full pack on; waits while too many wait already."""
        self.new_bytes += pack.size
        self.pack_bytes[-1] = pack.size
        if len(self._put) >= MAX_WAITING:
            self._put.pop(0).result()
        self._put.append(self._putting.submit(self._put_pack, pack))

    def _put_pack(self, pack: Pack) -> None:
        self._blobs.put(pack_key(self._tenant, pack.id), pack.data())


def _fill(found: _Filled) -> None:
    """Give entries their extents: by one thread, window after window, so that they ascend."""
    for entry, extents in found:
        entry.extents += extents


def _extents(
    spans: Sequence[_Span], found: Sequence[_Cut], numbers: Sequence[int]
) -> Iterator[tuple[Entry, tuple[int, ...]]]:
    """Yield each span's extents: offset in the file, chunk, skip, length. Both ascend: one pass."""
    at = 0
    for entry, offset, start, length in spans:
        stop = start + length
        while found[at][0] + found[at][1] <= start:
            at += 1
        extents: list[int] = []
        here = start
        while here < stop:
            first, size = found[at]
            end = min(first + size, stop)
            extents += (offset + here - start, numbers[at], here - first, end - here)
            here = end
            if here < stop:
                at += 1
        yield entry, tuple(extents)

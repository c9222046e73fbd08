"""Contents of files to sealed packs: cut, named, and kept once, by two threads and in bounded memory.

Small files are cut together, for one chunk holds many of them; a large one is cut alone.
"""

import errno
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from handiwork.sandboxes.snapshots.chunks import cuts
from handiwork.sandboxes.snapshots.manifest import Entry
from handiwork.sandboxes.snapshots.packs import PACK_BYTES, ChunkPlace, Pack, pack_key
from handiwork.sandboxes.snapshots.sealing import ID_BYTES, Keys, compressed
from handiwork.store.blobs import Blobs

WINDOW_BYTES = 4 * 1024 * 1024
SMALL_BYTES = 128 * 1024
THREADS = 2
MAX_WAITING = 4
"""Windows, and as many packs, that are held at once."""
MAX_SEGMENTS = 4096
"""Data between holes of one file; what comes after counts as data whole."""

_Filled = list[tuple[Entry, tuple[int, ...]]]


@dataclass
class _Window:
    """Bytes to be cut; `spans` tells whose they are: entry, offset in the file, offset here, length."""

    data: bytearray = field(default_factory=bytearray)
    spans: list[tuple[Entry, int, int, int]] = field(default_factory=list)


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
        self._small = _Window()
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

    def read(self, entry: Entry, file: int, size: int, *, sparse: bool) -> None:
        """Take a file's content in, from an open descriptor."""
        entry.size = size
        if size <= SMALL_BYTES and not sparse:
            self._read_small(entry, file, size)
            return
        for start, end in _segments(file, size) if sparse else [(0, size)]:
            entry.size = min(entry.size, self._read_large(entry, file, start, end))

    def finish(self) -> None:
        """Wait until all is cut and kept; raises what failed first."""
        self._cut_later(self._small, last=True)
        while self._cut:
            _fill(self._cut.popleft().result())
        if self._pack is not None:
            self._put_later(self._pack)
            self._pack = None
        for task in self._put:
            task.result()

    def _read_small(self, entry: Entry, file: int, size: int) -> None:
        content = _read(file, size, 0)
        entry.size = len(content)
        if content:
            window = self._small
            window.spans.append((entry, 0, len(window.data), len(content)))
            window.data += content
            if len(window.data) >= WINDOW_BYTES:
                self._cut_later(window, last=True)
                self._small = _Window()

    def _read_large(self, entry: Entry, file: int, start: int, end: int) -> int:
        """Take one stretch in; return the file's end, which is nearer where it was cut short."""
        tail = b""
        at = start
        while at < end:
            content = _read(file, min(WINDOW_BYTES, end - at), at)
            last = not content or at + len(content) == end
            window = _Window(bytearray(tail) + content)
            offset = at - len(tail)
            window.spans.append((entry, offset, 0, len(window.data)))
            at += len(content)
            taken = self._cut_later(window, last=last)
            tail = bytes(window.data[taken:])
            if not content:
                return at
        return max(end, entry.size)

    def _cut_later(self, window: _Window, *, last: bool) -> int:
        """Cut a window now, and leave the rest to a thread; return how much of it was cut."""
        found = list(cuts(window.data, last=last))
        if not found:
            return 0
        while self._cut and self._cut[0].done():
            _fill(self._cut.popleft().result())
        self._room.acquire()
        self._cut.append(self._cutting.submit(self._keep, window, found))
        return found[-1][0] + found[-1][1]

    def _keep(self, window: _Window, found: list[tuple[int, int]]) -> _Filled:
        try:
            whole = memoryview(bytes(window.data))
            numbers = [self._chunk(whole[at : at + length]) for at, length in found]
        finally:
            self._room.release()
        return [
            (entry, tuple(_extents(found, numbers, offset, at, length)))
            for entry, offset, at, length in window.spans
        ]

    def _chunk(self, content: memoryview) -> int:
        """Return the number of a chunk, kept now unless it was before."""
        name = self._keys.name(content)
        number = self.known.get(name)
        if number is not None:
            return number
        packed = compressed(content)
        with self._lock:
            number = self.known.get(name)
            return self._add(name, packed, len(content)) if number is None else number

    def _add(self, name: bytes, packed: bytes, size: int) -> int:
        if self._pack is None:
            self._pack = Pack(self._keys, self._draw(ID_BYTES))
            self.packs.append(self._pack.id)
            self.pack_bytes.append(0)
        offset, stored = self._pack.add(name, packed)
        number = self.known[name] = len(self.places)
        place = ChunkPlace(name, len(self.packs) - 1, offset, stored, size)
        self.places.append(place)
        if len(self._pack.data) >= PACK_BYTES:
            self._put_later(self._pack)
            self._pack = None
        return number

    def _put_later(self, pack: Pack) -> None:
        """Hand a full pack on; waits while too many wait already."""
        self.new_bytes += len(pack.data)
        self.pack_bytes[-1] = len(pack.data)
        if len(self._put) >= MAX_WAITING:
            self._put.pop(0).result()
        key, data = pack_key(self._tenant, pack.id), bytes(pack.data)
        self._put.append(self._putting.submit(self._blobs.put, key, data))


def _fill(found: _Filled) -> None:
    """Give entries their extents: by one thread, window after window, so that they ascend."""
    for entry, extents in found:
        entry.extents += extents


def _read(file: int, size: int, offset: int) -> bytes:
    """Read as much as there is of `size` bytes."""
    content = os.pread(file, size, offset)
    while 0 < len(content) < size:
        more = os.pread(file, size - len(content), offset + len(content))
        if not more:
            break
        content += more
    return content


def _segments(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where a sparse file has data."""
    at = 0
    for _ in range(MAX_SEGMENTS):
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = min(os.lseek(file, start, os.SEEK_HOLE), size)
        if start >= size or at <= start:
            return
        yield start, at
    yield at, size


def _extents(
    found: list[tuple[int, int]], numbers: list[int], offset: int, at: int, length: int
) -> Iterator[int]:
    """Yield a span's extents: offset in the file, chunk, skip, length."""
    end = at + length
    for (start, size), number in zip(found, numbers, strict=True):
        first, last = max(start, at), min(start + size, end)
        if first < last:
            yield from (offset + first - at, number, first - start, last - first)

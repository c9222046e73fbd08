"""What a machine wrote, read from its disk while nothing of it runs: for a snapshot, as other tiers' trees.

The machine's kernel wrote the disk, and the machine may be its guest's by now: no kernel of ours mounts
it. What is on it and cannot be is DamagedDiskError.
"""

import os
import stat
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm.ext4.attributes import attributes
from handiwork.sandboxes.microvm.ext4.damage import DamagedDiskError
from handiwork.sandboxes.microvm.ext4.names import find, names
from handiwork.sandboxes.microvm.ext4.pieces import Piece, pieces
from handiwork.sandboxes.microvm.ext4.volume import ROOT, Inode, Volume
from handiwork.sandboxes.snapshots.contents import SPARSE_BLOCKS
from handiwork.sandboxes.snapshots.listing import (
    MAX_NAMES,
    Attributes,
    Listing,
    Rules,
    is_same,
    kind_of,
    no_place,
)
from handiwork.sandboxes.snapshots.manifest import (
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_FILE_BYTES,
    MAX_TARGET_BYTES,
    Entry,
    Kind,
)

UPPER = b"upper"
_INLINE_BYTES = 60


class DiskFile:
    """Implements `snapshots.contents.Content`: a file on the disk."""

    def __init__(self, volume: Volume, inode: Inode) -> None:
        if inode.size > MAX_FILE_BYTES:
            raise DamagedDiskError("a file is longer than a file can be")
        self._volume = volume
        self._pieces = pieces(volume, inode)
        self.size = inode.size
        written = sum(piece.blocks for piece in self._pieces) * volume.block_bytes
        self.is_sparse = written < inode.size - 512 * SPARSE_BLOCKS

    def read(self, size: int, offset: int) -> bytes:
        """Return as much as there is of `size` bytes."""
        end = min(offset + size, self.size)
        found, at = [], offset
        for start, stop, place in self._written(offset, end):
            found += [bytes(start - at), self._volume.bytes_at(place, stop - start)]
            at = stop
        found.append(bytes(max(0, end - at)))
        return b"".join(found)

    def _written(self, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Yield what is written between there: start, end, and its place on the disk."""
        unit = self._volume.block_bytes
        first = bisect_right(self._pieces, offset // unit, key=_logical) - 1
        for index in range(max(0, first), len(self._pieces)):
            logical, physical, count = self._pieces[index]
            start, stop = max(offset, logical * unit), min(end, (logical + count) * unit)
            if logical * unit >= end:
                return
            if start < stop:
                yield start, stop, physical * unit + start - logical * unit

    def segments(self) -> Iterator[tuple[int, int]]:
        """Yield where it has data, in as many pieces as it lies on the disk."""
        unit = self._volume.block_bytes
        for piece in self._pieces:
            start = piece.logical * unit
            end = min(start + piece.blocks * unit, self.size)
            if start < end:
                yield start, end


def _logical(piece: Piece) -> int:
    return piece.logical


class DiskTree:
    """Implements `snapshots.protocol.Tree` on the open disk of a machine that holds still."""

    def __init__(self, disk: int) -> None:
        self._disk = disk

    def flush(self) -> bool:
        """Say that every later write changes a time: the machine's kernel has written all pages out."""
        return True

    def listed(self, rules: Rules, read: Callable[[Entry, DiskFile], None]) -> Listing:
        """Walk what the sandbox wrote."""
        return walked(lambda: volume_of(self._disk, rules.stopped), rules, read)


def walked(
    opened: Callable[[], Volume], rules: Rules, read: Callable[[Entry, DiskFile], None]
) -> "DiskWalk":
    """Open a file system and walk it; whatever is on it is told as a DamagedDiskError, or says what it is."""
    try:
        walk = DiskWalk(opened(), rules, read)
        walk.run()
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise DamagedDiskError(f"it holds what cannot be: {error}") from error
    return walk


def volume_of(disk: int, stopped: Callable[[], bool]) -> Volume:
    """Return the file system of an open disk; whoever is to stop reads no more of it."""

    def read(at: int, size: int) -> bytes:
        if stopped():
            raise SandboxUnavailableError("the snapshot was stopped")
        return os.pread(disk, size, at)

    return Volume(read, os.fstat(disk).st_size)


class _Frame:
    """A directory that is being walked."""

    __slots__ = ("inner", "number", "path")

    def __init__(self, number: int, path: bytes, inner: Iterator[tuple[bytes, int]]) -> None:
        self.number = number
        self.path = path
        self.inner = inner


class DiskWalk(Listing):
    """One walk: its entries grow as it goes."""

    def __init__(
        self, volume: Volume, rules: Rules, read: Callable[[Entry, DiskFile], None]
    ) -> None:
        super().__init__(rules)
        self._volume = volume
        self._read = read
        self._entered: set[int] = set()
        self._seen = 0

    def run(self) -> None:
        """Walk the directory that the sandbox wrote into."""
        upper = find(self._volume, self._volume.inode(ROOT), UPPER)
        if upper is None or not stat.S_ISDIR(upper.mode):
            raise DamagedDiskError("it has nothing that a sandbox wrote")
        frames = [self._enter(-1, b"", b"", upper)]
        while frames:
            frame = frames[-1]
            found = next(frame.inner, None)
            if found is None:
                frames.pop()
                continue
            name, number = found
            inode = self._volume.inode(number)
            frames.append(self._enter(frame.number, frame.path + b"/" + name, name, inode))
            if len(frames) > MAX_DEPTH:
                raise self.refusal(frames[-1].path, f"is deeper than {MAX_DEPTH} directories")

    def _enter(self, parent: int, path: bytes, name: bytes, inode: Inode) -> _Frame:
        """Add a directory and what it holds but directories."""
        if inode.number in self._entered:
            raise self.refusal(path, "is a directory twice")
        self._entered.add(inode.number)
        kept = self._attributes(path or b"/", inode)
        self.add(parent, name, Kind.DIRECTORY, _facts(inode), kept)
        number = len(self.entries) - 1
        return _Frame(number, path, iter(self._directory(number, path, inode)))

    def _directory(self, number: int, path: bytes, directory: Inode) -> list[tuple[bytes, int]]:
        inner = []
        known, left_out = self.known(path), self.left_out(path)
        for name, target in self._names(path, directory):
            if name in left_out:
                continue
            inode = self._volume.inode(target)
            if stat.S_ISDIR(inode.mode):
                inner.append((name, target))
            else:
                self._one(number, path + b"/" + name, name, inode, known.get(name))
        return inner

    def _names(self, path: bytes, directory: Inode) -> list[tuple[bytes, int]]:
        found: dict[bytes, int] = {}
        for name, number in names(self._volume, directory):
            if name in found:
                raise self.refusal(path or b"/", "has one name twice")
            if len(found) >= MAX_NAMES:
                raise self.refusal(path or b"/", f"holds more than {MAX_NAMES} names")
            found[name] = number
        self._seen += len(found)
        if self._seen > MAX_ENTRIES:  # also of those that are left out
            raise self.refusal(
                path or b"/", f"is one of those that hold more than {MAX_ENTRIES} names"
            )
        return sorted(found.items())

    def _one(
        self, parent: int, here: bytes, name: bytes, inode: Inode, former: Entry | None
    ) -> None:
        facts = _facts(inode)
        kind = kind_of(facts)
        if kind is None:
            self.skip(here, no_place(facts))
        elif self.is_link(parent, name, facts):
            return
        elif kind == Kind.FILE and former is not None and is_same(former, facts):
            self.take_over(parent, former, facts)
        elif kind == Kind.FILE:
            entry = self.add(parent, name, kind, facts, self._attributes(here, inode))
            self._read(entry, DiskFile(self._volume, inode))
        elif kind == Kind.SYMLINK:
            self.add_symlink(parent, name, facts, self._target(inode))
        else:
            self.add(parent, name, kind, facts)

    def _attributes(self, here: bytes, inode: Inode) -> Attributes:
        return self.attributes(here, attributes(self._volume, inode))

    def _target(self, inode: Inode) -> bytes:
        if not 0 < inode.size <= MAX_TARGET_BYTES:
            raise DamagedDiskError("a link leads nowhere")
        if inode.size < _INLINE_BYTES:
            target = inode.inline[: inode.size]
        else:
            target = DiskFile(self._volume, inode).read(inode.size, 0)
        if b"\0" in target:
            raise DamagedDiskError("a link leads nowhere")
        return target


def _facts(inode: Inode) -> os.stat_result:
    """Return what the kernel would tell of a file."""
    seconds = inode.mtime_ns // 1_000_000_000, inode.ctime_ns // 1_000_000_000
    told = (inode.mode, inode.number, 0, inode.links, inode.uid, inode.gid, inode.size)
    more = {
        "st_mtime_ns": inode.mtime_ns,
        "st_ctime_ns": inode.ctime_ns,
        "st_rdev": inode.device,
    }
    return os.stat_result((*told, seconds[0], *seconds), more)

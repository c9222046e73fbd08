"""Making a tree from a manifest, in an empty directory that nobody else sees yet.

The manifest may be anybody's: names are single ones, parents are directories made here, and links
are made after all files, so that no path can lead out. What fails leaves the directory to its owner.
"""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.snapshots.listing import shown
from handiwork.sandboxes.snapshots.manifest import Entry, Kind, Manifest, path_of
from handiwork.sandboxes.snapshots.owners import Range, attribute_outside
from handiwork.sandboxes.snapshots.packs import PackReader
from handiwork.sandboxes.snapshots.sealing import DamagedError
from handiwork.sandboxes.snapshots.walk import DIRECTORY

THREADS = 2
BATCH_FILES = 512
BATCH_BYTES = 16 * 1024 * 1024
_LINKED = b".linked"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MOVED = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Restore:
    """One making of a tree. `place` is an open directory of ours; the tree becomes its `name`.

    `contents` None: the contents come from `reader`. Else they lie in that open directory already,
    under the numbers of their entries, and are moved.
    """

    manifest: Manifest
    reader: PackReader | None
    ids: Range
    place: int
    name: str
    stop: threading.Event = field(default_factory=threading.Event)
    contents: int | None = None

    def run(self) -> None:
        """Make the tree; what raises leaves a part of it, which is nobody's state.

        SandboxUnavailableError where the disk refuses, DamagedError where the store does not have it.
        """
        self._check_owners()
        try:
            self._make()
        except OSError as error:
            head = self.manifest.head
            raise SandboxUnavailableError(
                f"generation {head.number} of {head.sandbox_id} cannot be made here:"
                f" {error.strerror or error}"
            ) from error

    def path(self, number: int) -> str:
        """Return an entry's path for people to read."""
        return shown(path_of(self.manifest.body.entries, number))

    def _make(self) -> None:
        os.mkdir(self.name, 0o700, dir_fd=self.place)
        os.mkdir(_LINKED, 0o700, dir_fd=self.place)
        self._linked = os.open(_LINKED, DIRECTORY, dir_fd=self.place)
        try:
            with _Cursor(self) as cursor:
                self._directories(cursor)
                self._files()
                self._others(cursor)
                self._finish_directories(cursor)
            for number, entry in enumerate(self.manifest.body.entries):
                if entry.linked:
                    os.unlink(str(number), dir_fd=self._linked)
        finally:
            os.close(self._linked)
        os.rmdir(_LINKED, dir_fd=self.place)

    def _check_owners(self) -> None:
        entries = self.manifest.body.entries
        owners = {entry.uid for entry in entries} | {entry.gid for entry in entries}
        strange = {owner for owner in owners if self.ids.outside(owner) is None}
        for number, entry in enumerate(entries if strange else ()):
            if entry.uid in strange or entry.gid in strange:
                raise UnsupportedError(
                    f"{self.path(number)} belongs to the id {entry.uid}:{entry.gid}, which a sandbox"
                    " of an ordinary user does not have: start Handiwork as root to restore it"
                )

    def _directories(self, cursor: "_Cursor") -> None:
        for number, entry in enumerate(self.manifest.body.entries):
            if number and entry.kind == Kind.DIRECTORY:
                os.mkdir(entry.name, 0o700, dir_fd=cursor.at(entry.parent))

    def _files(self) -> None:
        entries = self.manifest.body.entries
        files = [number for number, entry in enumerate(entries) if entry.kind == Kind.FILE]
        places = self.manifest.body.chunks

        def order(number: int) -> tuple[int, int]:
            extents = entries[number].extents
            if not extents:
                return -1, 0
            return places[extents[1]].pack, places[extents[1]].offset

        files.sort(key=order)
        with ThreadPoolExecutor(THREADS, thread_name_prefix="restore") as pool:
            tasks = [pool.submit(self._batch, batch) for batch in self._batches(files)]
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                self.stop.set()
                raise

    def _batches(self, files: list[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        size = 0
        for number in files:
            batch.append(number)
            size += self.manifest.body.entries[number].size
            if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        yield batch

    def _batch(self, batch: Sequence[int]) -> None:
        chunks = _Chunks(self)
        with _Cursor(self) as cursor:
            for number in batch:
                if self.stop.is_set():
                    raise SandboxUnavailableError("the restore was stopped")
                self._file(number, cursor.at(self.manifest.body.entries[number].parent), chunks)

    def _file(self, number: int, parent: int, chunks: "_Chunks") -> None:
        entry = self.manifest.body.entries[number]
        if self.contents is None:
            file = os.open(entry.name, _CREATE, 0o600, dir_fd=parent)
        else:
            os.rename(str(number), entry.name, src_dir_fd=self.contents, dst_dir_fd=parent)
            file = os.open(entry.name, _MOVED, dir_fd=parent)
        try:
            if self.contents is None:
                self._fill(number, entry, file, chunks)
            self._dress(number, entry, file)
        finally:
            os.close(file)
        if entry.linked:
            os.link(entry.name, str(number), src_dir_fd=parent, dst_dir_fd=self._linked)

    def _fill(self, number: int, entry: Entry, file: int, chunks: "_Chunks") -> None:
        end, extents = 0, entry.extents
        for at in range(0, len(extents), 4):
            offset, chunk, skip, length = extents[at : at + 4]
            content = chunks.content(chunk, number)[skip : skip + length]
            end = offset + length
            written = os.pwrite(file, content, offset)
            while written < length:
                written += os.pwrite(file, content[written:], offset + written)
        if end != entry.size:
            os.ftruncate(file, entry.size)

    def _others(self, cursor: "_Cursor") -> None:
        for number, entry in enumerate(self.manifest.body.entries):
            if entry.kind in (Kind.DIRECTORY, Kind.FILE):
                continue
            parent = cursor.at(entry.parent)
            if entry.kind == Kind.LINK:
                self._link(entry, parent)
                continue
            if entry.kind == Kind.SYMLINK:
                os.symlink(entry.target, entry.name, dir_fd=parent)
            elif entry.kind == Kind.FIFO:
                os.mkfifo(entry.name, 0o600, dir_fd=parent)
            else:
                os.mknod(entry.name, 0o020600, 0, dir_fd=parent)
            self._dress_by_name(entry, parent)
            if entry.linked:
                os.link(
                    entry.name,
                    str(number),
                    src_dir_fd=parent,
                    dst_dir_fd=self._linked,
                    follow_symlinks=False,
                )

    def _link(self, entry: Entry, parent: int) -> None:
        os.link(
            str(entry.link),
            entry.name,
            src_dir_fd=self._linked,
            dst_dir_fd=parent,
            follow_symlinks=False,
        )

    def _finish_directories(self, cursor: "_Cursor") -> None:
        """Children first: a directory that its owner may not enter cannot be entered any more."""
        entries = self.manifest.body.entries
        for number in range(len(entries) - 1, -1, -1):
            if entries[number].kind == Kind.DIRECTORY:
                directory = cursor.at(number)
                self._dress(number, entries[number], directory)

    def _dress(self, number: int, entry: Entry, file: int) -> None:
        """Owner, mode, attributes and time, in the order in which none undoes another."""
        if self.ids.base and not self.ids.later:
            os.fchown(file, self.ids.base + entry.uid, self.ids.base + entry.gid)
        if not self.ids.later:
            os.fchmod(file, entry.mode)
        for name, value in entry.xattrs:
            outer = attribute_outside(name, value, self.ids)
            if outer is None:
                continue
            try:
                os.setxattr(file, name, outer)
            except OSError as error:
                raise SandboxUnavailableError(
                    f"{self.path(number)}: cannot set {name.decode('ascii', 'replace')}:"
                    f" {error.strerror}"
                ) from None
        os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))

    def _dress_by_name(self, entry: Entry, parent: int) -> None:
        if self.ids.base and not self.ids.later:
            uid, gid = self.ids.base + entry.uid, self.ids.base + entry.gid
            os.chown(entry.name, uid, gid, dir_fd=parent, follow_symlinks=False)
        if entry.kind != Kind.SYMLINK and not self.ids.later:
            os.chmod(entry.name, entry.mode, dir_fd=parent)
        times = (entry.mtime_ns, entry.mtime_ns)
        with contextlib.suppress(PermissionError):  # rootless, of a whiteout
            os.utime(entry.name, ns=times, dir_fd=parent, follow_symlinks=False)


class _Cursor:
    """An open directory of the new tree; going to another one opens name by name."""

    def __init__(self, restore: Restore) -> None:
        self._entries = restore.manifest.body.entries
        self._open = [(0, os.open(restore.name, DIRECTORY, dir_fd=restore.place))]

    def __enter__(self) -> "_Cursor":
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.pop()[1])

    def at(self, number: int) -> int:
        """Return a descriptor of a directory, good until the next call."""
        if self._open[-1][0] == number:
            return self._open[-1][1]
        way = [number]
        while way[-1] != 0:
            way.append(self._entries[way[-1]].parent)
        way.reverse()
        shared = 0
        for (opened, _), wanted in zip(self._open, way, strict=False):
            if opened != wanted:
                break
            shared += 1
        while len(self._open) > shared:
            os.close(self._open.pop()[1])
        for wanted in islice(way, shared, None):
            name = self._entries[wanted].name
            directory = os.open(name, DIRECTORY, dir_fd=self._open[-1][1])
            self._open.append((wanted, directory))
        return self._open[-1][1]


class _Chunks:
    """The contents of files, one thread's; a chunk that many small files share is opened once."""

    def __init__(self, restore: Restore) -> None:
        self._restore = restore
        self._last = -1
        self._content = memoryview(b"")

    def content(self, chunk: int, number: int) -> memoryview:
        """Return the content of a chunk, for a file's entry."""
        if chunk != self._last:
            manifest = self._restore.manifest
            reader, place = self._restore.reader, manifest.body.chunks[chunk]
            if reader is None:
                raise DamagedError("a tree whose contents are here has no chunks")
            pack_id = manifest.head.packs[place.pack]
            tell = self._teller(number)
            self._content = memoryview(reader.chunk(pack_id, place, tell))
            self._last = chunk
        return self._content

    def _teller(self, number: int) -> Callable[[], str]:
        restore = self._restore
        head = restore.manifest.head
        return lambda: f"{restore.path(number)} of {head.sandbox_id}, generation {head.number}"

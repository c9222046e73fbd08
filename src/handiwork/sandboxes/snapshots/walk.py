"""Reading a tree that a guest made: one name at a time below an open directory, links never followed.

A directory's other entries come before its directories, so that its files stand together. What has
no place in a snapshot is left out and named; what is too much ends the walk.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.snapshots.manifest import (
    MAX_DEPTH,
    MAX_ENTRIES,
    Entry,
    Kind,
    path_of,
)
from handiwork.sandboxes.snapshots.owners import Range, attribute_inside

MAX_NAMES = 200_000
"""In one directory."""
MAX_XATTR_BYTES = 64 * 1024
MAX_TOLD = 100
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

Read = Callable[[int, int, os.stat_result], None]
"""Takes the number of a file's entry, its open descriptor and what was said of it."""
Known = Callable[[bytes, os.stat_result], Entry | None]
"""Returns the entry of a former generation where the file is as it was then."""


@dataclass(frozen=True)
class _Frame:
    """A directory that is being walked: one for each level, so few are open at once."""

    number: int
    directory: int
    path: bytes
    inner: Iterator[bytes]


@dataclass
class Walk:
    """One walk: its entries grow as it goes. `excluded` are absolute paths inside."""

    ids: Range
    excluded: frozenset[bytes]
    read: Read
    known: Known
    stopped: Callable[[], bool]
    entries: list[Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    skipped_count: int = 0
    reused: list[int] = field(default_factory=list)
    _files: dict[tuple[int, int], int] = field(default_factory=dict)

    def run(self, root: int) -> None:
        """Walk the tree of an open directory, which stays the caller's."""
        facts = os.fstat(root)
        self._add(-1, b"", Kind.DIRECTORY, facts, self._attributes(root, b"/"))
        frames = [self._frame(0, os.dup(root), b"")]
        try:
            while frames:
                frame = frames[-1]
                name = next(frame.inner, None)
                if name is None:
                    os.close(frames.pop().directory)
                elif (child := self._enter(frame, name)) is not None:
                    frames.append(child)
                if len(frames) > MAX_DEPTH:
                    raise self.refusal(frames[-1].path, f"is deeper than {MAX_DEPTH} directories")
        finally:
            for frame in frames:
                os.close(frame.directory)

    def _frame(self, number: int, directory: int, path: bytes) -> "_Frame":
        """Take an open directory over, and add what it holds but directories."""
        try:
            inner = self._directory(number, directory, path)
        except BaseException:
            os.close(directory)
            raise
        return _Frame(number, directory, path, iter(inner))

    def _directory(self, number: int, directory: int, path: bytes) -> list[bytes]:
        """Add what a directory holds but directories; return the names of those."""
        inner = []
        for name in _names(directory, self, path):
            here = path + b"/" + name
            if here in self.excluded:
                continue
            try:
                facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    inner.append(name)
                else:
                    self._leaf(number, directory, name, facts, here)
            except FileNotFoundError:
                continue
        return inner

    def _enter(self, parent: "_Frame", name: bytes) -> "_Frame | None":
        here = parent.path + b"/" + name
        try:
            child = os.open(name, DIRECTORY, dir_fd=parent.directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.refusal(here, f"cannot be opened: {error.strerror}") from None
        try:
            xattrs = self._attributes(child, here)
            self._add(parent.number, name, Kind.DIRECTORY, os.fstat(child), xattrs)
        except BaseException:
            os.close(child)
            raise
        return self._frame(len(self.entries) - 1, child, here)

    def _leaf(
        self, parent: int, directory: int, name: bytes, facts: os.stat_result, here: bytes
    ) -> None:
        first = self._files.get((facts.st_dev, facts.st_ino)) if facts.st_nlink > 1 else None
        if first is not None:
            self._add(parent, name, Kind.LINK, facts, ()).link = first
            self.entries[first].linked = True
            return
        kind = _kind(facts)
        if kind is None:
            self.skip(here, "a socket" if stat.S_ISSOCK(facts.st_mode) else "a device")
            return
        if kind == Kind.FILE:
            self._file(parent, directory, name, facts, here)
        else:
            entry = self._add(parent, name, kind, facts, ())
            if kind == Kind.SYMLINK:
                entry.target = os.readlink(name, dir_fd=directory)
        if facts.st_nlink > 1:
            self._files[facts.st_dev, facts.st_ino] = len(self.entries) - 1

    def _file(
        self, parent: int, directory: int, name: bytes, facts: os.stat_result, here: bytes
    ) -> None:
        former = self.known(here, facts)
        if former is not None:
            entry = self._add(parent, name, Kind.FILE, facts, former.xattrs)
            entry.size, entry.extents = former.size, former.extents
            self.reused.append(len(self.entries) - 1)
            return
        try:
            file = os.open(name, _FILE, dir_fd=directory)
        except OSError as error:
            raise self.refusal(here, f"cannot be read: {error.strerror}") from None
        try:
            facts = os.fstat(file)
            if not stat.S_ISREG(facts.st_mode):
                raise self.refusal(here, "changed while it was read")
            self._add(parent, name, Kind.FILE, facts, self._attributes(file, here))
            self.read(len(self.entries) - 1, file, facts)
        finally:
            os.close(file)

    def _add(
        self,
        parent: int,
        name: bytes,
        kind: Kind,
        facts: os.stat_result,
        xattrs: tuple[tuple[bytes, bytes], ...],
    ) -> Entry:
        if len(self.entries) >= MAX_ENTRIES:
            raise SandboxUnavailableError(
                f"the sandbox's files are more than {MAX_ENTRIES}; remove some to have a snapshot"
            )
        if self.stopped():
            raise SandboxUnavailableError("the snapshot was stopped")
        entry = Entry(
            parent=parent,
            name=name,
            kind=kind,
            mode=stat.S_IMODE(facts.st_mode),
            uid=self.ids.inside(facts.st_uid),
            gid=self.ids.inside(facts.st_gid),
            mtime_ns=facts.st_mtime_ns,
            xattrs=xattrs,
            inode=facts.st_ino,
            ctime_ns=facts.st_ctime_ns,
        )
        self.entries.append(entry)
        return entry

    def _attributes(self, descriptor: int, here: bytes) -> tuple[tuple[bytes, bytes], ...]:
        kept = []
        for text in os.listxattr(descriptor):
            with contextlib.suppress(OSError):
                value = os.getxattr(descriptor, text)
                if len(value) > MAX_XATTR_BYTES:
                    raise self.refusal(here, "has an attribute that is too long")
                try:
                    inner = attribute_inside(os.fsencode(text), value, self.ids)
                except ValueError as error:
                    raise self.refusal(here, str(error)) from None
                if inner is not None:
                    kept.append((os.fsencode(text), inner))
        return tuple(kept)

    def skip(self, here: bytes, what: str) -> None:
        """Leave something out and name it."""
        self.skipped_count += 1
        if len(self.skipped) < MAX_TOLD:
            self.skipped.append(f"{shown(here)} is {what}")

    def path(self, number: int) -> str:
        """Return an entry's path for people to read."""
        return shown(path_of(self.entries, number))

    def refusal(self, here: bytes, why: str) -> SandboxUnavailableError:
        """Return what ends the walk."""
        return SandboxUnavailableError(f"no snapshot: {shown(here)} {why}")


def shown(path: bytes) -> str:
    """Return a guest's path as text that may stand in a log."""
    text = path[:300].decode("utf-8", "replace")
    return "".join(one if one.isprintable() else "?" for one in text)


def _names(directory: int, walk: Walk, path: bytes) -> list[bytes]:
    names = []
    with os.scandir(directory) as found:
        for entry in found:
            names.append(os.fsencode(entry.name))
            if len(names) > MAX_NAMES:
                raise walk.refusal(path or b"/", f"holds more than {MAX_NAMES} names")
    return sorted(names)


def _kind(facts: os.stat_result) -> Kind | None:
    mode = facts.st_mode
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISLNK(mode):
        return Kind.SYMLINK
    if stat.S_ISCHR(mode) and facts.st_rdev == 0:
        return Kind.WHITEOUT
    return Kind.FIFO if stat.S_ISFIFO(mode) else None

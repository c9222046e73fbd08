"""Reading a tree that a guest made: one name at a time below an open directory, links never followed.

A directory's other entries come before its directories, so that its files stand together. What has
no place in a snapshot is left out and named; what is too much ends the walk.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.snapshots.manifest import (
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_XATTR_BYTES,
    Entry,
    Kind,
    path_of,
)
from handiwork.sandboxes.snapshots.owners import Range, attribute_inside

MAX_NAMES = 200_000
"""In one directory."""
MAX_TOLD = 100
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

Read = Callable[[Entry, int, os.stat_result], None]
"""Takes a file's entry, its open descriptor and what was said of it."""
Known = Callable[[bytes], Mapping[bytes, Entry]]
"""Returns, of the directory at a path, the files of a former generation that can be recognised; the
walk takes over those that are the same."""
_NOTHING: frozenset[bytes] = frozenset()


class _Frame:
    """A directory that is being walked: one for each level, so few are open at once."""

    __slots__ = ("directory", "inner", "number", "path")

    def __init__(self, number: int, directory: int, path: bytes) -> None:
        self.number = number
        self.directory = directory
        self.path = path
        self.inner: Iterator[bytes] = iter(())


class _Inside(dict[int, int]):
    """Owners as seen inside, each worked out once."""

    def __init__(self, ids: Range) -> None:
        self._ids = ids

    def __missing__(self, host_id: int) -> int:
        self[host_id] = inside = self._ids.inside(host_id)
        return inside


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
    _files: dict[tuple[int, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._inside = _Inside(self.ids)
        self._left_out: dict[bytes, set[bytes]] = {}
        for path in self.excluded:
            parent, _, name = path.rpartition(b"/")
            self._left_out.setdefault(parent, set()).add(name)

    def run(self, root: int) -> None:
        """Walk the tree of an open directory, which stays the caller's."""
        facts = os.fstat(root)
        self._add(-1, b"", Kind.DIRECTORY, facts, self._attributes(root, b"", b""))
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

    def _frame(self, number: int, directory: int, path: bytes) -> _Frame:
        """Take an open directory over, and add what it holds but directories."""
        frame = _Frame(number, directory, path)
        try:
            frame.inner = iter(self._directory(frame))
        except BaseException:
            os.close(directory)
            raise
        return frame

    def _directory(self, frame: _Frame) -> list[bytes]:
        """Add what a directory holds but directories; return the names of those."""
        inner = []
        known = self.known(frame.path)
        left_out = self._left_out.get(frame.path, _NOTHING)
        for name, found in _names(frame.directory, self, frame.path):
            if name in left_out:
                continue
            try:
                if found.is_dir(follow_symlinks=False):
                    inner.append(name)
                elif found.is_file(follow_symlinks=False):
                    self._file(frame, name, found, known.get(name))
                else:
                    self._other(frame, name, found.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue
        return inner

    def _enter(self, parent: _Frame, name: bytes) -> _Frame | None:
        here = parent.path + b"/" + name
        try:
            child = os.open(name, DIRECTORY, dir_fd=parent.directory)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.refusal(here, f"cannot be opened: {error.strerror}") from None
        try:
            xattrs = self._attributes(child, parent.path, name)
            self._add(parent.number, name, Kind.DIRECTORY, os.fstat(child), xattrs)
        except BaseException:
            os.close(child)
            raise
        return self._frame(len(self.entries) - 1, child, here)

    def _file(
        self, frame: _Frame, name: bytes, found: "os.DirEntry[str]", former: Entry | None
    ) -> None:
        if former is not None and _is_same(former, facts := found.stat(follow_symlinks=False)):
            if not self._is_link(frame, name, facts):
                self._take_over(frame, former, facts)
            return
        try:
            file = os.open(name, _FILE, dir_fd=frame.directory)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self.refusal(
                frame.path + b"/" + name, f"cannot be read: {error.strerror}"
            ) from None
        try:
            self._content(frame, name, file)
        finally:
            os.close(file)

    def _take_over(self, frame: _Frame, former: Entry, facts: os.stat_result) -> None:
        """Add a file as it was: a change of owner, mode or attributes is a change of its time too."""
        self._check_room()
        if facts.st_nlink > 1:
            self._files[facts.st_dev, facts.st_ino] = len(self.entries)
        former.parent, former.linked = frame.number, False
        self.entries.append(former)

    def _content(self, frame: _Frame, name: bytes, file: int) -> None:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise self.refusal(frame.path + b"/" + name, "changed while it was read")
        if not self._is_link(frame, name, facts):
            xattrs = self._attributes(file, frame.path, name)
            self.read(self._add(frame.number, name, Kind.FILE, facts, xattrs), file, facts)

    def _other(self, frame: _Frame, name: bytes, facts: os.stat_result) -> None:
        kind = _kind(facts)
        if kind is None:
            what = "a socket" if stat.S_ISSOCK(facts.st_mode) else "a device"
            self.skip(frame.path + b"/" + name, what)
        elif not self._is_link(frame, name, facts):
            entry = self._add(frame.number, name, kind, facts, ())
            if kind == Kind.SYMLINK:
                entry.target = os.readlink(name, dir_fd=frame.directory)

    def _is_link(self, frame: _Frame, name: bytes, facts: os.stat_result) -> bool:
        """Say whether this is one more name of what was added; then it was added as that."""
        first = self._files.get((facts.st_dev, facts.st_ino)) if facts.st_nlink > 1 else None
        if first is None:
            return False
        self._add(frame.number, name, Kind.LINK, facts, ()).link = first
        self.entries[first].linked = True
        return True

    def _add(
        self,
        parent: int,
        name: bytes,
        kind: Kind,
        facts: os.stat_result,
        xattrs: tuple[tuple[bytes, bytes], ...],
    ) -> Entry:
        self._check_room()
        if facts.st_nlink > 1 and kind not in (Kind.DIRECTORY, Kind.LINK):
            self._files[facts.st_dev, facts.st_ino] = len(self.entries)
        entry = Entry(
            parent=parent,
            name=name,
            kind=kind,
            mode=stat.S_IMODE(facts.st_mode),
            uid=self._inside[facts.st_uid],
            gid=self._inside[facts.st_gid],
            mtime_ns=facts.st_mtime_ns,
            xattrs=xattrs,
            inode=facts.st_ino,
            ctime_ns=facts.st_ctime_ns,
        )
        self.entries.append(entry)
        return entry

    def _check_room(self) -> None:
        if len(self.entries) >= MAX_ENTRIES:
            raise SandboxUnavailableError(
                f"the sandbox's files are more than {MAX_ENTRIES}; remove some to have a snapshot"
            )
        if self.stopped():
            raise SandboxUnavailableError("the snapshot was stopped")

    def _attributes(
        self, descriptor: int, path: bytes, name: bytes
    ) -> tuple[tuple[bytes, bytes], ...]:
        texts = os.listxattr(descriptor)
        return self._values(descriptor, path + b"/" + name, texts) if texts else ()

    def _values(
        self, descriptor: int, here: bytes, texts: list[str]
    ) -> tuple[tuple[bytes, bytes], ...]:
        kept = []
        for text in texts:
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


def _names(directory: int, walk: Walk, path: bytes) -> list[tuple[bytes, "os.DirEntry[str]"]]:
    names = []
    with os.scandir(directory) as found:
        for entry in found:
            names.append((entry.name.encode(_ENCODING, _ERRORS), entry))
            if len(names) > MAX_NAMES:
                raise walk.refusal(path or b"/", f"holds more than {MAX_NAMES} names")
    return sorted(names, key=_first)


def _first(pair: tuple[bytes, object]) -> bytes:
    return pair[0]


def _is_same(entry: Entry, facts: os.stat_result) -> bool:
    """Say whether a file is as it was: times of change are the kernel's own, nobody inside sets them."""
    return (
        entry.inode == facts.st_ino
        and entry.ctime_ns == facts.st_ctime_ns
        and entry.size == facts.st_size
        and entry.mtime_ns == facts.st_mtime_ns
    )


def _kind(facts: os.stat_result) -> Kind | None:
    mode = facts.st_mode
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISLNK(mode):
        return Kind.SYMLINK
    if stat.S_ISCHR(mode) and facts.st_rdev == 0:
        return Kind.WHITEOUT
    return Kind.FIFO if stat.S_ISFIFO(mode) else None

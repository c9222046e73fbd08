"""Reading a tree that a guest made: one name at a time below an open directory, links never followed.

A directory's other entries come before its directories, so that its files stand together. What has
no place in a snapshot is left out and named; what is too much ends the walk.

A tree may lie in layers, each of which wins over those below it and takes away from them as an overlay
does: what is walked is what they are together, as one upper directory would hold it. What one deleted
of another is then simply not there; what it deleted of the image below all of them stays deleted, so
the image has to be looked at: a deletion of nothing would show as a name.
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
OPAQUE = b"user.overlay.opaque"
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
    """A directory that is being walked, in every layer that has it: few are open at once."""

    __slots__ = ("directories", "image", "inner", "number", "path")

    def __init__(self, number: int, directories: list[int], path: bytes, image: int | None) -> None:
        self.number = number
        self.directories = directories
        self.image = image
        self.path = path
        self.inner: Iterator[bytes] = iter(())

    def close(self) -> None:
        while self.directories:
            os.close(self.directories.pop())
        if self.image is not None:
            os.close(self.image)
            self.image = None


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
        self._layered = False
        self._inside = _Inside(self.ids)
        self._left_out: dict[bytes, set[bytes]] = {}
        for path in self.excluded:
            parent, _, name = path.rpartition(b"/")
            self._left_out.setdefault(parent, set()).add(name)

    def run(self, root: int, *below: int, image: int | None = None) -> None:
        """Walk the tree of an open directory, over those below it; all stay the caller's.

        `image` is the root of what lies below all of them, and is needed where there are layers.
        """
        self._layered = bool(below)
        facts = os.fstat(root)
        self._add(-1, b"", Kind.DIRECTORY, facts, self._attributes(root, b"", b""))
        opened = [os.dup(one) for one in (root, *below)]
        frames = [self._frame(0, opened, b"", None if image is None else os.dup(image))]
        try:
            while frames:
                frame = frames[-1]
                name = next(frame.inner, None)
                if name is None:
                    frames.pop().close()
                elif (child := self._enter(frame, name)) is not None:
                    frames.append(child)
                if len(frames) > MAX_DEPTH:
                    raise self.refusal(frames[-1].path, f"is deeper than {MAX_DEPTH} directories")
        finally:
            for frame in frames:
                frame.close()

    def _frame(self, number: int, directories: list[int], path: bytes, image: int | None) -> _Frame:
        """Take open directories over, and add what they hold but directories."""
        frame = _Frame(number, directories, path, image)
        try:
            frame.inner = iter(self._directory(frame))
        except BaseException:
            frame.close()
            raise
        return frame

    def _directory(self, frame: _Frame) -> list[bytes]:
        """Add what a directory holds but directories; return the names of those."""
        inner = []
        known = self.known(frame.path)
        left_out = self._left_out.get(frame.path, _NOTHING)
        for name, found, directory in _names(frame.directories, self, frame.path):
            if name in left_out:
                continue
            try:
                if found.is_dir(follow_symlinks=False):
                    inner.append(name)
                elif found.is_file(follow_symlinks=False):
                    self._file(frame, name, directory, found, known.get(name))
                else:
                    self._other(frame, name, directory, found.stat(follow_symlinks=False))
            except FileNotFoundError:
                continue
        return inner

    def _enter(self, parent: _Frame, name: bytes) -> _Frame | None:
        here = parent.path + b"/" + name
        children: list[int] = []
        try:
            closed = self._open_all(parent, name, here, children)
            if not children:
                return None
            xattrs = self._attributes(children[0], parent.path, name)
            if closed:
                others = (one for one in xattrs if one[0] != OPAQUE)
                xattrs = (*others, (OPAQUE, b"y"))
            self._add(parent.number, name, Kind.DIRECTORY, os.fstat(children[0]), xattrs)
            image = None if closed or parent.image is None else _opened_in(parent.image, name)
        except BaseException:
            for child in children:
                os.close(child)
            raise
        return self._frame(len(self.entries) - 1, children, here, image)

    def _open_all(self, parent: _Frame, name: bytes, here: bytes, children: list[int]) -> bool:
        """Open a directory in each layer that it is made of; say whether nothing below them shows in it."""
        layered = len(parent.directories) > 1
        for directory in parent.directories:
            try:
                children.append(os.open(name, DIRECTORY, dir_fd=directory))
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                return True
            except OSError as error:
                raise self.refusal(here, f"cannot be opened: {error.strerror}") from None
            if layered and _is_opaque(children[-1]):
                return True
        return False

    def _file(
        self,
        frame: _Frame,
        name: bytes,
        directory: int,
        found: "os.DirEntry[str]",
        former: Entry | None,
    ) -> None:
        if former is not None and _is_same(former, facts := found.stat(follow_symlinks=False)):
            if not self._is_link(frame, name, facts):
                self._take_over(frame, former, facts)
            return
        try:
            file = os.open(name, _FILE, dir_fd=directory)
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

    def _other(self, frame: _Frame, name: bytes, directory: int, facts: os.stat_result) -> None:
        kind = _kind(facts)
        if kind is None:
            what = "a socket" if stat.S_ISSOCK(facts.st_mode) else "a device"
            self.skip(frame.path + b"/" + name, what)
        elif kind == Kind.WHITEOUT and self._layered and not _is_in(frame.image, name):
            return  # it was deleted of a layer, and is not there
        elif not self._is_link(frame, name, facts):
            entry = self._add(frame.number, name, kind, facts, ())
            if kind == Kind.SYMLINK:
                entry.target = os.readlink(name, dir_fd=directory)

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


def _opened_in(image: int, name: bytes) -> int | None:
    """Open the image's directory of that name, where it has one."""
    try:
        return os.open(name, DIRECTORY, dir_fd=image)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_in(image: int | None, name: bytes) -> bool:
    if image is None:
        return False
    try:
        os.lstat(name, dir_fd=image)
    except FileNotFoundError:
        return False
    return True


def _is_opaque(directory: int) -> bool:
    try:
        return os.getxattr(directory, OPAQUE) == b"y"
    except OSError:
        return False


def _names(
    directories: list[int], walk: Walk, path: bytes
) -> list[tuple[bytes, "os.DirEntry[str]", int]]:
    """Return all names, sorted, each with the entry of the topmost layer that has it and its directory."""
    names: list[tuple[bytes, os.DirEntry[str], int]] = []
    above: set[bytes] = set()
    for directory in directories:
        with os.scandir(directory) as found:
            for entry in found:
                name = entry.name.encode(_ENCODING, _ERRORS)
                if name not in above:
                    names.append((name, entry, directory))
                if len(names) > MAX_NAMES:
                    raise walk.refusal(path or b"/", f"holds more than {MAX_NAMES} names")
        if directory != directories[-1]:
            above.update(name for name, _, _ in names)
    return sorted(names, key=_first)


def _first(found: tuple[bytes, object, object]) -> bytes:
    return found[0]


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

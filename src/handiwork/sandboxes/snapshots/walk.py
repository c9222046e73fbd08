"""Reading a tree that a guest made: one name at a time below an open directory, links never followed.

A directory's other entries come before its directories, so that its files stand together. What has
no place in a snapshot is left out and named; what is too much ends the walk.

A tree may lie in layers, each of which wins over those below it and takes away from them as an overlay
does: what is walked is what they are together, as one upper directory would hold it. What one deleted
of another is then simply not there; what it deleted of the image below all of them stays deleted, so
the image has to be looked at: a deletion of nothing would show as a name.
"""

import contextlib
import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.snapshots import listing
from handiwork.sandboxes.snapshots.contents import OpenFile
from handiwork.sandboxes.snapshots.listing import (
    Attributes,
    Listing,
    Rules,
    is_same,
    kind_of,
    no_place,
)
from handiwork.sandboxes.snapshots.manifest import MAX_DEPTH, Entry, Kind
from handiwork.sandboxes.trees import flush_open, writes_back

OPAQUE = b"user.overlay.opaque"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()

Read = Callable[[Entry, OpenFile], None]
"""Takes a file's entry and its content."""


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


class Walk(Listing):
    """One walk: its entries grow as it goes."""

    def __init__(self, rules: Rules, read: Read) -> None:
        super().__init__(rules)
        self._read = read
        self._layered = False

    def run(self, root: int, *below: int, image: int | None = None) -> None:
        """Walk the tree of an open directory, over those below it; all stay the caller's.

        `image` is the root of what lies below all of them, and is needed where there are layers.
        """
        self._layered = bool(below)
        facts = os.fstat(root)
        self.add(-1, b"", Kind.DIRECTORY, facts, self._attributes(root, b"/"))
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
                    raise self.too_deep(frames[-1].path)
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
        left_out = self.left_out(frame.path)
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
            xattrs = self._attributes(children[0], here)
            if closed:
                others = (one for one in xattrs if one[0] != OPAQUE)
                xattrs = (*others, (OPAQUE, b"y"))
            self.add(parent.number, name, Kind.DIRECTORY, os.fstat(children[0]), xattrs)
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
        if former is not None and is_same(former, facts := found.stat(follow_symlinks=False)):
            if not self.is_link(frame.number, name, facts):
                self.take_over(frame.number, former, facts)
            return
        try:
            file = _opened(name, directory)
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

    def _content(self, frame: _Frame, name: bytes, file: int) -> None:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            raise self.refusal(frame.path + b"/" + name, "changed while it was read")
        if not self.is_link(frame.number, name, facts):
            xattrs = self._attributes(file, frame.path + b"/" + name)
            entry = self.add(frame.number, name, Kind.FILE, facts, xattrs)
            self._read(entry, OpenFile(file, facts))

    def _other(self, frame: _Frame, name: bytes, directory: int, facts: os.stat_result) -> None:
        kind = kind_of(facts)
        if kind is None:
            self.skip(frame.path + b"/" + name, no_place(facts))
        elif kind == Kind.WHITEOUT and self._layered and not _is_in(frame.image, name):
            return  # it was deleted of a layer, and is not there
        elif not self.is_link(frame.number, name, facts):
            if kind == Kind.SYMLINK:
                self._symlink(frame, name, directory, facts)
            else:
                self.add(frame.number, name, kind, facts)

    def _symlink(self, frame: _Frame, name: bytes, directory: int, facts: os.stat_result) -> None:
        try:
            target = os.readlink(name, dir_fd=directory)
        except FileNotFoundError:
            raise  # it is gone, as any name may be
        except OSError as error:
            changed = error.errno == errno.EINVAL
            why = "changed while it was read" if changed else f"cannot be read: {error.strerror}"
            raise self.refusal(frame.path + b"/" + name, why) from None
        self.add_symlink(frame.number, name, facts, target)

    def _attributes(self, descriptor: int, here: bytes) -> Attributes:
        names = os.listxattr(descriptor)
        return self.attributes(here, _values(descriptor, names)) if names else ()


class Uppers:
    """Implements `protocol.Tree`: open directories, topmost first, of which nobody changes the others.

    `lower` is the open root of the image below them, which is needed where they are several.
    """

    def __init__(self, directories: Sequence[int], lower: int | None = None) -> None:
        self._directories = directories
        self._lower = lower

    def flush(self) -> bool:
        """Have their file system see the next write to each page; False where it never would.

        A page that was written to through a mapping stays writable until it is written back: later
        writes change no time until then. When all is clean, the next one is a fault, which changes it.
        """
        topmost = self._directories[0]
        if not writes_back(topmost):
            return False
        try:
            flush_open(topmost)
        except OSError as error:
            raise SandboxUnavailableError(
                f"no snapshot: the disk does not take what was written: {error.strerror}"
            ) from None
        return True

    def listed(self, rules: Rules, read: Read) -> Listing:
        """Walk what they are together."""
        walk = Walk(rules, read)
        walk.run(*self._directories, image=self._lower)
        return walk


def _values(descriptor: int, names: list[str]) -> Iterator[tuple[bytes, bytes]]:
    for name in names:
        with contextlib.suppress(OSError):  # it is gone
            yield os.fsencode(name), os.getxattr(descriptor, name)


def _opened(name: bytes, directory: int) -> int:
    """Open a file to read; without root, its owner may have given up even his own right to do so.

    He has it back for as long as the opening takes. Whoever ends us right then leaves him it.
    """
    try:
        return os.open(name, _FILE, dir_fd=directory)
    except PermissionError:
        place = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        itself, mode = f"/proc/self/fd/{place}", stat.S_IMODE(os.fstat(place).st_mode)
        os.chmod(itself, mode | stat.S_IRUSR)  # noqa: PTH101 - it is a descriptor
        try:
            return os.open(itself, _FILE & ~os.O_NOFOLLOW)
        finally:
            os.chmod(itself, mode)  # noqa: PTH101 - it is a descriptor
    finally:
        os.close(place)


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
                if len(names) > listing.MAX_NAMES:
                    raise walk.too_many_names(path)
        if directory != directories[-1]:
            above.update(name for name, _, _ in names)
    return sorted(names, key=_first)


def _first(found: tuple[bytes, object, object]) -> bytes:
    return found[0]

"""What a tree holds, as a walk of it finds it: entries, and what has no place in a snapshot.

However the tree is read, here it is decided what of a file is kept, and how much is too much.
"""

import os
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.snapshots.manifest import (
    MAX_DEPTH,
    MAX_ENTRIES,
    MAX_NAME_BYTES,
    MAX_XATTR_BYTES,
    Entry,
    Kind,
    path_of,
)
from handiwork.sandboxes.snapshots.owners import Range, attribute_inside

MAX_NAMES = 200_000
"""In one directory."""
MAX_TOLD = 100
LEAST_NS, MOST_NS = -(1 << 63), (1 << 64) - 1
MAX_TEXT_BYTES = 256 * 1024 * 1024
"""Of names, of what links lead to, and of attributes, all together: a manifest has to hold them."""

Known = Callable[[bytes], Mapping[bytes, Entry]]
"""Returns, of the directory at a path, the files of a former generation that can be recognised; the
walk takes over those that are the same."""
Attributes = tuple[tuple[bytes, bytes], ...]
_NOTHING: frozenset[bytes] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How to walk. `ids` are those of the files' owners; `excluded` are absolute paths inside."""

    ids: Range
    excluded: frozenset[bytes] = frozenset()
    known: Known = lambda _: {}
    stopped: Callable[[], bool] = lambda: False


class _Inside(dict[int, int]):
    """Owners as seen inside, each worked out once."""

    def __init__(self, ids: Range) -> None:
        self._ids = ids

    def __missing__(self, host_id: int) -> int:
        self[host_id] = inside = self._ids.inside(host_id)
        return inside


class Listing:
    """Grows as its tree is walked. SandboxUnavailableError where there can be no snapshot of it."""

    def __init__(self, rules: Rules) -> None:
        self.entries: list[Entry] = []
        self.skipped: list[str] = []
        self.skipped_count = 0
        self._rules = rules
        self._files: dict[tuple[int, int], int] = {}
        self._text_bytes = 0
        self._inside = _Inside(rules.ids)
        self._left_out: dict[bytes, set[bytes]] = {}
        for path in rules.excluded:
            parent, _, name = path.rpartition(b"/")
            self._left_out.setdefault(parent, set()).add(name)

    def left_out(self, path: bytes) -> frozenset[bytes] | set[bytes]:
        """Return the names of a directory that are not to be looked at."""
        return self._left_out.get(path, _NOTHING)

    def known(self, path: bytes) -> Mapping[bytes, Entry]:
        """Return what a former generation knows of a directory's files."""
        return self._rules.known(path)

    def add(
        self, parent: int, name: bytes, kind: Kind, facts: os.stat_result, xattrs: Attributes = ()
    ) -> Entry:
        """Add one name and return its entry."""
        self._check_room()
        self._count_text(len(name))
        if facts.st_nlink > 1 and kind not in (Kind.DIRECTORY, Kind.LINK):
            self._files[facts.st_dev, facts.st_ino] = len(self.entries)
        entry = Entry(
            parent=parent,
            name=name,
            kind=kind,
            mode=stat.S_IMODE(facts.st_mode),
            uid=self._inside[facts.st_uid],
            gid=self._inside[facts.st_gid],
            mtime_ns=_kept(facts.st_mtime_ns),
            xattrs=xattrs,
            inode=facts.st_ino,
            ctime_ns=_kept(facts.st_ctime_ns),
        )
        self.entries.append(entry)
        return entry

    def add_symlink(self, parent: int, name: bytes, facts: os.stat_result, target: bytes) -> None:
        """Add a link that leads somewhere."""
        self._count_text(len(target))
        self.add(parent, name, Kind.SYMLINK, facts).target = target

    def is_link(self, parent: int, name: bytes, facts: os.stat_result) -> bool:
        """Say whether this is one more name of what was added; then it was added as that."""
        first = self._files.get((facts.st_dev, facts.st_ino)) if facts.st_nlink > 1 else None
        if first is None:
            return False
        self.add(parent, name, Kind.LINK, facts).link = first
        self.entries[first].linked = True
        return True

    def take_over(self, parent: int, former: Entry, facts: os.stat_result) -> None:
        """Add a file as it was: a change of owner, mode or attributes is a change of its time too."""
        self._check_room()
        if facts.st_nlink > 1:
            self._files[facts.st_dev, facts.st_ino] = len(self.entries)
        former.parent, former.linked = parent, False
        self.entries.append(former)

    def attributes(self, here: bytes, found: Iterable[tuple[bytes, bytes]]) -> Attributes:
        """Return what is kept of a file's extended attributes."""
        kept = []
        for name, value in found:
            if len(value) > MAX_XATTR_BYTES or len(name) > MAX_NAME_BYTES:
                raise self.refusal(here, "has an attribute that is too long")
            try:
                inner = attribute_inside(name, value, self._rules.ids)
            except ValueError as error:
                raise self.refusal(here, str(error)) from None
            if inner is not None:
                self._count_text(len(name) + len(inner))
                kept.append((name, inner))
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

    def too_many_names(self, here: bytes) -> SandboxUnavailableError:
        """Return what ends the walk at a directory with more names than one may have."""
        why = f"holds more than {MAX_NAMES} names; move some elsewhere to have a snapshot"
        return self.refusal(here or b"/", why)

    def too_deep(self, here: bytes) -> SandboxUnavailableError:
        """Return what ends the walk at a directory that lies below too many."""
        why = (
            f"is deeper than {MAX_DEPTH} directories; move it up, or remove it, to have a snapshot"
        )
        return self.refusal(here, why)

    def _count_text(self, size: int) -> None:
        self._text_bytes += size
        if self._text_bytes > MAX_TEXT_BYTES:
            raise SandboxUnavailableError(
                f"the names, links and attributes of the sandbox's files are more than"
                f" {MAX_TEXT_BYTES >> 20} MiB; remove some to have a snapshot"
            )

    def _check_room(self) -> None:
        if len(self.entries) >= MAX_ENTRIES:
            raise SandboxUnavailableError(
                f"the sandbox has more than {MAX_ENTRIES} files, directories and links of its own;"
                " remove some to have a snapshot"
            )
        if self._rules.stopped():
            raise SandboxUnavailableError("the snapshot was stopped")


def _kept(time_ns: int) -> int:
    """Return a time as a manifest can hold it: until 2554, which not every file system ends before."""
    return min(max(time_ns, LEAST_NS), MOST_NS)


def shown(path: bytes) -> str:
    """Return a guest's path as text that may stand in a log."""
    text = path[:300].decode("utf-8", "replace")
    return "".join(one if one.isprintable() else "?" for one in text)


def is_same(entry: Entry, facts: os.stat_result) -> bool:
    """Say whether a file is as it was: times of change are the kernel's own, nobody inside sets them."""
    return (
        entry.inode == facts.st_ino
        and entry.ctime_ns == facts.st_ctime_ns
        and entry.size == facts.st_size
        and entry.mtime_ns == facts.st_mtime_ns
    )


def kind_of(facts: os.stat_result) -> Kind | None:
    """Return what a name is that is no directory; None for what has no place in a snapshot."""
    mode = facts.st_mode
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISLNK(mode):
        return Kind.SYMLINK
    if stat.S_ISCHR(mode) and facts.st_rdev == 0:
        return Kind.WHITEOUT
    return Kind.FIFO if stat.S_ISFIFO(mode) else None


def no_place(facts: os.stat_result) -> str:
    """Say what something is that has no place in a snapshot."""
    return "a socket" if stat.S_ISSOCK(facts.st_mode) else "a device"

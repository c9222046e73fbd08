"""The files of a workspace as a snapshot takes them, and a workspace made of such files. Every call blocks."""

import contextlib
import os
import sqlite3
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from handiwork.model.errors import GuestError, SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.isolate.workspace import CHUNK_BYTES, HOME, ROOT, Quota, Workspace
from handiwork.sandboxes.snapshots.contents import Content
from handiwork.sandboxes.snapshots.listing import Listing, Rules, is_same, shown
from handiwork.sandboxes.snapshots.manifest import Entry, Kind

IMAGE = "isolate"
"""What a snapshot says it stands on: nothing but what is in it."""
UPPER = "upper"
_ROWS = "select id, path, directory, mode, size, mtime_ns from nodes order by path"
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_Row = tuple[int, str, int, int, int, int]


class WorkspaceTree:
    """Implements `snapshots.protocol.Tree`: a workspace as it was when its walk began, open elsewhere or not."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def flush(self) -> bool:
        """Have nothing to do: a file that is written anew is another one, under another number."""
        return True

    def listed(self, rules: Rules, read: Callable[[Entry, Content], None]) -> Listing:
        """Walk it in one transaction; SandboxUnavailableError."""
        try:
            with contextlib.closing(sqlite3.connect(self._path, isolation_level=None)) as db:
                db.execute("pragma query_only = on")
                db.execute("begin")
                return _Walk(db, rules, read).run()
        except sqlite3.Error as error:
            raise SandboxUnavailableError(f"the workspace cannot be read: {error}") from None


class _Walk(Listing):
    """Its entries by path; a directory's own comes before those that it holds."""

    def __init__(
        self, db: sqlite3.Connection, rules: Rules, read: Callable[[Entry, Content], None]
    ) -> None:
        super().__init__(rules)
        self._db = db
        self._read = read
        self._numbers: dict[str, int] = {}

    def run(self) -> Listing:
        """Add all of them."""
        for row in self._db.execute(_ROWS):
            path: str = row[1]
            parent, _, name = path.rpartition("/")
            if path == ROOT:
                self._numbers[""] = 0
                self.add(-1, b"", Kind.DIRECTORY, _facts(row))
            elif parent in self._numbers and name.encode() not in self.left_out(parent.encode()):
                self._add_one(row, path, parent, name.encode())
        return self

    def _add_one(self, row: _Row, path: str, parent: str, name: bytes) -> None:
        number, facts = self._numbers[parent], _facts(row)
        if stat.S_ISDIR(facts.st_mode):
            self._numbers[path] = len(self.entries)
            self.add(number, name, Kind.DIRECTORY, facts)
            return
        former = self.known(parent.encode()).get(name)
        if former is not None and is_same(former, facts):
            self.take_over(number, former, facts)
        else:
            self._read(self.add(number, name, Kind.FILE, facts), _Stored(self._db, row))


class _Stored:
    """What one file holds."""

    is_sparse = False

    def __init__(self, db: sqlite3.Connection, row: _Row) -> None:
        self._db = db
        self._node, *_, self.size, _ = row

    def read(self, size: int, offset: int) -> bytes:
        """Return as much as there is of `size` bytes."""
        first, skip = divmod(offset, CHUNK_BYTES)
        rows = self._db.execute(
            "select data from chunks where node = ? and number between ? and ? order by number",
            (self._node, first, (offset + max(size, 1) - 1) // CHUNK_BYTES),
        )
        return b"".join(row[0] for row in rows)[skip : skip + size]

    def segments(self) -> Iterator[tuple[int, int]]:
        """Yield all of it as one."""
        if self.size:
            yield 0, self.size


def _facts(row: _Row) -> os.stat_result:
    """Return a row as the kernel tells of a file of ours; a file is never changed, so its times are one."""
    node, _, directory, mode, size, mtime_ns = row
    kind = stat.S_IFDIR if directory else stat.S_IFREG
    seconds = mtime_ns // 1_000_000_000
    named = (kind | mode, node, 0, 1, os.geteuid(), os.geteuid(), size, seconds, seconds, seconds)
    return os.stat_result(named, {"st_mtime_ns": mtime_ns, "st_ctime_ns": mtime_ns})


def make_of(place: Path, path: Path, quota: Quota) -> None:
    """Make a new workspace at `path` of the tree `upper` in a directory.

    Whoever wrote the tree: a link or anything else that is no file and no directory is UnsupportedError,
    more than the quota GuestError.
    """
    times = [0]
    dates: dict[str, int] = {}  # of directories: what is put into one changes it
    with (
        contextlib.closing(Workspace(path, quota, clock_ns=lambda: times[0])) as workspace,
        _opened(place) as above,
    ):
        facts = os.stat(UPPER, dir_fd=above, follow_symlinks=False)
        _inside("/", UPPER, facts, stat.S_ISDIR)
        dates["/"] = facts.st_mtime_ns
        for here, inner, files, directory in os.fwalk(UPPER, onerror=_refuse, dir_fd=above):
            base = "/" + here.removeprefix(UPPER).lstrip("/")
            for name in inner:
                facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
                target = _inside(base, name, facts, stat.S_ISDIR)
                dates[target] = facts.st_mtime_ns
                if target != HOME:
                    workspace.mkdir(target, mode=stat.S_IMODE(facts.st_mode), parents=False)
            for name in files:
                _take_file(workspace, base, name, directory, times)
        for inside, mtime_ns in dates.items():
            workspace.date(inside, mtime_ns)


def _refuse(error: OSError) -> NoReturn:
    raise error


def _take_file(
    workspace: Workspace, base: str, name: str, directory: int, times: list[int]
) -> None:
    facts = os.stat(name, dir_fd=directory, follow_symlinks=False)
    target = _inside(base, name, facts, stat.S_ISREG)
    times[0] = facts.st_mtime_ns
    descriptor = os.open(name, _FILE, dir_fd=directory)
    writing = workspace.writing(target, mode=stat.S_IMODE(facts.st_mode), parents=False)
    try:
        while data := os.read(descriptor, CHUNK_BYTES):
            writing.add(data)
        writing.finish()
    finally:
        writing.abort()
        os.close(descriptor)


def _inside(base: str, name: str, facts: os.stat_result, wanted: Callable[[int], bool]) -> str:
    path = f"{base.rstrip('/')}/{name}"
    if not wanted(facts.st_mode):
        raise UnsupportedError(
            f"{shown(os.fsencode(path))} is no file and no directory: a sandbox of the isolate tier has"
            " nothing else; make it one of the tier that the snapshot is of"
        )
    return path


@contextlib.contextmanager
def _opened(directory: Path) -> Iterator[int]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def put_in_place(made: Path, path: Path) -> None:
    """Let a workspace that is closed take the place of another that is; one of them is there at any moment."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    if path.exists():
        _whole(path)
    made.replace(path)
    with _opened(path.parent) as directory:
        os.fsync(directory)


def _whole(path: Path) -> None:
    """See that nothing of a workspace lies beside its file, where it would be taken for the next one's."""
    try:
        Workspace(path).close()
    except (sqlite3.Error, GuestError):
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)

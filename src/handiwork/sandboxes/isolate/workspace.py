"""The files of one isolate: a tree in one SQLite file, which nobody but us opens.

A file is cut into chunks, so that none is ever whole in memory unless somebody asks for all of it. What
is written becomes the file in one transaction, whole or not at all. Not for two threads at once.
"""

import contextlib
import errno
import os
import posixpath
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import msgspec

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import FileChange, FileInfo, FileKind

CHUNK_BYTES = 1 << 20
PATH_BYTES = 4096
NAME_BYTES = 255
NODE_BYTES = 512
"""What an entry costs besides its bytes, as far as the quota goes."""
READ_WHOLE_BYTES = 256 << 20
ROOT = "/"
HOME = "/workspace"

_SCHEMA = """
create table if not exists nodes (
    id integer primary key,
    path text not null unique,
    parent text not null,
    directory integer not null,
    mode integer not null,
    size integer not null,
    mtime_ns integer not null
);
create index if not exists nodes_parent on nodes (parent, path);
create table if not exists chunks (
    node integer not null,
    number integer not null,
    data blob not null,
    primary key (node, number)
) without rowid;
"""
_NAME_BITS = 31
_COLUMNS = "id, path, directory, mode, size, mtime_ns"


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """How much a workspace may hold."""

    bytes: int = 1 << 30
    nodes: int = 100_000


class Node(msgspec.Struct, frozen=True):
    """One file or directory."""

    id: int
    path: str
    directory: bool
    mode: int
    size: int
    mtime_ns: int

    def info(self) -> FileInfo:
        """Return it as the files of every tier are told."""
        return FileInfo(
            name=posixpath.basename(self.path) or "/",
            kind=FileKind.DIRECTORY if self.directory else FileKind.FILE,
            mode=self.mode,
            size=self.size,
            mtime_ns=self.mtime_ns,
            uid=0,
            gid=0,
        )


Heard = Callable[[FileChange, str, bool], None]
"""Told of each change: what, which path, whether it is a directory."""


class Workspace:
    """An open one. Errors of a path are GuestError, with the errno that a kernel would give."""

    def __init__(
        self,
        path: Path,
        quota: Quota | None = None,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        draw: Callable[[int], int] = secrets.randbits,
    ) -> None:
        self._quota = quota or Quota()
        self._clock_ns = clock_ns
        self._draw = draw
        self._db = sqlite3.connect(path, isolation_level=None, cached_statements=64)
        self._listeners: list[Heard] = []
        self._bytes = 0  # of files, and of what is being written
        self._nodes = 0
        self._last_id = 0
        try:
            self._open()
        except BaseException:
            self._db.close()
            raise

    def _open(self) -> None:
        self._db.execute("pragma journal_mode = wal")
        self._db.execute("pragma synchronous = normal")
        self._db.execute("pragma trusted_schema = off")
        self._db.executescript(_SCHEMA)
        # What was being written when a former run ended.
        self._db.execute("delete from chunks where node not in (select id from nodes)")
        if self._find(ROOT) is None:
            self._db.execute(f"pragma user_version = {self._draw(_NAME_BITS)}")
            for path in (ROOT, HOME):
                self._add(path, directory=True, mode=0o755, size=0)
        counted = self._db.execute("select coalesce(sum(size), 0), count(*) from nodes")
        self._bytes, self._nodes = counted.fetchone()
        self._last_id = self._db.execute("select max(id) from nodes").fetchone()[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything is in it. No-op when it is closed."""
        self._db.close()

    @property
    def name(self) -> int:
        """A number that was drawn when it was made; copies have that of what they are of."""
        return int(self._db.execute("pragma user_version").fetchone()[0])

    @property
    def used_bytes(self) -> int:
        """How much of the quota is used."""
        return self._bytes + self._nodes * NODE_BYTES

    def listen(self, heard: Heard) -> Callable[[], None]:
        """Tell of changes from now on; call what is returned to hear no more."""
        self._listeners.append(heard)
        return lambda: self._listeners.remove(heard)

    def stat(self, path: str) -> Node:
        """Return what a path names."""
        found = self._find(cleaned(path))
        if found is None:
            raise self._missing(path)
        return found

    def list(self, path: str, limit: int) -> list[Node]:
        """Return the first entries of a directory, by name."""
        node = self._directory(path)
        rows = self._db.execute(
            f"select {_COLUMNS} from nodes where parent = ? and path != ? order by path limit ?",  # noqa: S608 -- no part of it is given by others
            (node.path, ROOT, limit),
        )
        return [_node(row) for row in rows]

    def walk(self, path: str = ROOT) -> Iterator[Node]:
        """Yield everything below a directory, by path; what changes meanwhile may be told or not."""
        node = self._directory(path)
        first, last = _below(node.path)
        at = first
        while True:
            rows = self._db.execute(
                f"select {_COLUMNS} from nodes where path > ? and path < ? order by path limit 500",  # noqa: S608 -- no part of it is given by others
                (at, last),
            ).fetchall()
            for row in rows:
                yield _node(row)
            if not rows:
                return
            at = rows[-1][1]

    def read(self, path: str, offset: int, limit: int | None) -> Iterator[bytes]:
        """Yield bytes of a file from an offset on, at most `limit`, a chunk at a time."""
        node = self._file(path)
        left = node.size - offset if limit is None else min(limit, node.size - offset)
        number, skip = divmod(offset, CHUNK_BYTES)
        while left > 0:
            row = self._db.execute(
                "select data from chunks where node = ? and number = ?", (node.id, number)
            ).fetchone()
            if row is None:
                raise GuestError(f"{path}: it was replaced while it was read", errno=errno.ESTALE)
            data = row[0][skip : skip + left]
            yield data
            left -= len(data)
            number, skip = number + 1, 0

    def writing(self, path: str, *, mode: int, parents: bool) -> "Writing":
        """Return what takes the bytes of a file; nothing of it is seen before its `finish`."""
        target = cleaned(path)
        if target == ROOT or ((found := self._find(target)) and found.directory):
            raise GuestError(f"{path}: it is a directory", errno=errno.EISDIR)
        self._parent(target, parents=parents, only_checked=True)
        self._last_id += 1
        return Writing(self, target, self._last_id, mode=mode, parents=parents)

    def mkdir(self, path: str, *, mode: int, parents: bool) -> None:
        """Make a directory; with `parents` one that is there already is no error."""
        target = cleaned(path)
        found = self._find(target)
        if found is not None and not (parents and found.directory):
            raise GuestError(f"{path}: it exists", errno=errno.EEXIST)
        if found is None:
            with self._whole():
                self._parent(target, parents=parents)
                self._room(0, 1)
                self._add(target, directory=True, mode=mode, size=0)
            self._tell(FileChange.CREATED, target, directory=True)

    def remove(self, path: str, *, recursive: bool) -> None:
        """Remove a file, or a directory with all that it holds, if `recursive`, else an empty one."""
        node = self.stat(path)
        if node.path in (ROOT, HOME):
            raise GuestError(f"{path}: it cannot be removed", errno=errno.EBUSY)
        first, last = _below(node.path)
        if node.directory and not recursive and self._any_below(first, last):
            raise GuestError(f"{path}: the directory is not empty", errno=errno.ENOTEMPTY)
        with self._whole():
            chosen = "path = ? or (path > ? and path < ?)"
            where = (node.path, first, last)
            size, count = self._db.execute(
                f"select coalesce(sum(size), 0), count(*) from nodes where {chosen}",  # noqa: S608 -- no part of it is given by others
                where,
            ).fetchone()
            self._db.execute(
                f"delete from chunks where node in (select id from nodes where {chosen})",  # noqa: S608 -- no part of it is given by others
                where,
            )
            self._db.execute(f"delete from nodes where {chosen}", where)  # noqa: S608 -- no part of it is given by others
            self._changed(posixpath.dirname(node.path))
        self._bytes -= size
        self._nodes -= count
        self._tell(FileChange.REMOVED, node.path, directory=node.directory)

    def move(self, source: str, target: str) -> None:
        """Rename as rename(2) does: what stands at the target gives way, unless it is a full directory."""
        node, goal = self.stat(source), cleaned(target)
        if node.path in (ROOT, HOME) or goal == node.path or goal.startswith(f"{node.path}/"):
            raise GuestError(f"{source} cannot be moved to {target}", errno=errno.EINVAL)
        there = self._find(goal)
        if there is not None and there.directory != node.directory:
            number = errno.EISDIR if there.directory else errno.ENOTDIR
            raise GuestError(f"{target}: {os.strerror(number)}", errno=number)
        self._parent(goal, parents=False, only_checked=True)
        if there is not None:
            self.remove(goal, recursive=False)
        with self._whole():
            first, last = _below(node.path)
            self._db.execute(
                "update nodes set path = ?, parent = ? where id = ?",
                (goal, posixpath.dirname(goal), node.id),
            )
            self._db.execute(
                "update nodes set path = ? || substr(path, ?), parent = ? || substr(parent, ?)"
                " where path > ? and path < ?",
                (goal, len(node.path) + 1, goal, len(node.path) + 1, first, last),
            )
            for parent in {posixpath.dirname(node.path), posixpath.dirname(goal)}:
                self._changed(parent)
        self._tell(FileChange.MOVED_AWAY, node.path, directory=node.directory)
        self._tell(FileChange.MOVED_HERE, goal, directory=node.directory)

    def date(self, path: str, mtime_ns: int) -> None:
        """Let a path have been changed at this time, until it is changed again."""
        self._db.execute("update nodes set mtime_ns = ? where path = ?", (mtime_ns, path))

    def copy_to(self, path: Path) -> None:
        """Write all of it, as it is now, into a new file."""
        self._db.execute("vacuum into ?", (str(path),))

    def store(self, node_id: int, number: int, data: bytes) -> None:
        """Keep a chunk of a file that is being written."""
        self._room(len(data), 0)
        self._db.execute("insert into chunks values (?, ?, ?)", (node_id, number, data))
        self._bytes += len(data)

    def forget(self, node_id: int, size: int) -> None:
        """Let go of the chunks of a file that was not finished, so many bytes."""
        self._db.execute("delete from chunks where node = ?", (node_id,))
        self._bytes -= size

    def link(self, path: str, node_id: int, size: int, *, mode: int, parents: bool) -> None:
        """Let what was stored be the file of a path."""
        with self._whole():
            former = self._find(path)
            if former is not None and former.directory:
                raise GuestError(f"{path}: it is a directory", errno=errno.EISDIR)
            if former is not None:
                self._db.execute("delete from nodes where id = ?", (former.id,))
                self._db.execute("delete from chunks where node = ?", (former.id,))
                self._bytes -= former.size
                self._nodes -= 1
            self._parent(path, parents=parents)
            self._room(0, 1)
            self._add(path, directory=False, mode=mode, size=size, node_id=node_id)
        change = FileChange.CREATED if former is None else FileChange.CHANGED
        self._tell(change, path, directory=False)

    def _find(self, path: str) -> Node | None:
        row = self._db.execute(f"select {_COLUMNS} from nodes where path = ?", (path,)).fetchone()  # noqa: S608 -- no part of it is given by others
        return None if row is None else _node(row)

    def _missing(self, path: str) -> GuestError:
        """Return why there is nothing: no such path, or one that goes through a file."""
        at = posixpath.dirname(cleaned(path))
        while (found := self._find(at)) is None:
            at = posixpath.dirname(at)
        number = errno.ENOENT if found.directory else errno.ENOTDIR
        return GuestError(f"{path}: {os.strerror(number)}", errno=number)

    def _directory(self, path: str) -> Node:
        node = self.stat(path)
        if not node.directory:
            raise GuestError(f"{path}: it is no directory", errno=errno.ENOTDIR)
        return node

    def _file(self, path: str) -> Node:
        node = self.stat(path)
        if node.directory:
            raise GuestError(f"{path}: it is a directory", errno=errno.EISDIR)
        return node

    def _any_below(self, first: str, last: str) -> bool:
        found = self._db.execute(
            "select 1 from nodes where path > ? and path < ? limit 1", (first, last)
        )
        return found.fetchone() is not None

    def _parent(self, path: str, *, parents: bool, only_checked: bool = False) -> None:
        """See that a path's directory is there, or make it."""
        parent = posixpath.dirname(path)
        found = self._find(parent)
        if found is not None and found.directory:
            return
        if found is not None or not parents:
            raise self._missing(path)
        self._parent(parent, parents=True, only_checked=only_checked)
        if not only_checked:
            self._room(0, 1)
            self._add(parent, directory=True, mode=0o755, size=0)

    def _add(self, path: str, *, directory: bool, mode: int, size: int, node_id: int = 0) -> None:
        if not node_id:
            self._last_id += 1
            node_id = self._last_id
        parent, now = posixpath.dirname(path), self._clock_ns()
        values = (node_id, path, parent, directory, mode & 0o7777, size, now)
        self._db.execute("insert into nodes values (?, ?, ?, ?, ?, ?, ?)", values)
        self._nodes += 1
        if path != ROOT:
            self._changed(parent)

    def _changed(self, directory: str) -> None:
        """Note that what a directory holds is another now."""
        self.date(directory, self._clock_ns())

    def _room(self, size: int, nodes: int) -> None:
        over = self.used_bytes + size + nodes * NODE_BYTES > self._quota.bytes
        if over or self._nodes + nodes > self._quota.nodes:
            raise GuestError(
                f"the workspace is full: {self._quota.bytes >> 20} MiB and {self._quota.nodes}"
                " files are the most; delete some",
                errno=errno.EDQUOT,
            )

    def _tell(self, change: FileChange, path: str, *, directory: bool) -> None:
        for heard in tuple(self._listeners):
            heard(change, path, directory)

    @contextlib.contextmanager
    def _whole(self) -> Iterator[None]:
        """Do all that is done meanwhile, or nothing of it."""
        counted = self._bytes, self._nodes
        self._db.execute("begin immediate")
        try:
            yield
        except BaseException:
            self._db.execute("rollback")
            self._bytes, self._nodes = counted
            raise
        self._db.execute("commit")


class Writing:
    """A file that is being written: `add` its bytes, then `finish`, or `abort` in any other case."""

    def __init__(
        self, workspace: Workspace, path: str, node_id: int, *, mode: int, parents: bool
    ) -> None:
        self._workspace = workspace
        self._path = path
        self._id = node_id
        self._mode = mode
        self._parents = parents
        self._size = 0
        self._stored = 0
        self._chunks = 0
        self._held = bytearray()

    def add(self, data: bytes) -> None:
        """Take more of it."""
        self._held += data
        self._size += len(data)
        while len(self._held) >= CHUNK_BYTES:
            self._store(bytes(self._held[:CHUNK_BYTES]))
            del self._held[:CHUNK_BYTES]

    def finish(self) -> None:
        """Let it be the file."""
        if self._held:
            self._store(bytes(self._held))
        self._workspace.link(
            self._path, self._id, self._size, mode=self._mode, parents=self._parents
        )
        self._stored = 0

    def abort(self) -> None:
        """Let go of it. No-op once it is finished."""
        if self._stored:
            self._workspace.forget(self._id, self._stored)
            self._stored = 0

    def _store(self, data: bytes) -> None:
        self._workspace.store(self._id, self._chunks, data)
        self._chunks += 1
        self._stored += len(data)


def cleaned(path: str) -> str:
    """Return an absolute path without `.`, `..` and doubled slashes; GuestError for one that is none."""
    if not path.startswith("/") or "\0" in path:
        raise GuestError(f"{path[:80]!r} is no absolute path", errno=errno.EINVAL)
    clean = "/" + posixpath.normpath(path).lstrip("/")
    try:
        sizes = [len(part.encode()) for part in clean.split("/")]
    except UnicodeEncodeError:
        raise GuestError(f"{path[:80]!r} is no text", errno=errno.EILSEQ) from None
    if max(sizes) > NAME_BYTES or sum(sizes) + len(sizes) > PATH_BYTES:
        raise GuestError(f"{path[:80]!r}: the name is too long", errno=errno.ENAMETOOLONG)
    return clean


def _below(path: str) -> tuple[str, str]:
    """Return between which two paths everything below a directory lies: `/` comes before `0`."""
    base = path.rstrip("/")
    return f"{base}/", f"{base}0"


def _node(row: tuple[int, str, int, int, int, int]) -> Node:
    number, path, directory, mode, size, mtime_ns = row
    return Node(number, path, bool(directory), mode, size, mtime_ns)

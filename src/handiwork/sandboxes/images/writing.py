"""A tree in memory becomes one on disk, and gets the digest that names it.

The directory is new and ours alone: every name is made by us, below a directory that we hold open,
and must not be there; no link is ever followed.
"""

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from handiwork.model.errors import ConfigError
from handiwork.sandboxes.images.nodes import Node, walk
from handiwork.sandboxes.images.rules import shown

PIECE_BYTES = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Progress = Callable[[str, int, int], None]
"""Is told a stage, what of it is done, and all of it (0: not known)."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """Tell nobody."""


class Writer:
    """Writes one tree; `sources` are open files that hold its contents.

    `owned` gives files their owners, which only root can; else all are ours, and count as root's.
    """

    def __init__(self, sources: Sequence[int], *, owned: bool, progress: Progress = silent) -> None:
        self._sources = sources
        self._owned = owned
        self._progress = progress
        self._total = 0
        self._done = 0
        self._first_names: dict[int, bytes] = {}
        self._contents: dict[int, bytes] = {}

    def write(self, root: Node, target: Path) -> str:
        """Write the tree to `target`, which must not be there, and return its digest; blocks."""
        self._total = sum({id(n): n.size for _, n in walk(root) if n.kind == "file"}.values())
        target.mkdir(mode=0o700)
        descriptor = os.open(target, _DIRECTORY)
        self._top = descriptor
        try:
            self._fill(descriptor, root, b"")
            self._finish(descriptor, root)
        finally:
            os.close(descriptor)
        return digest(root, self._contents, owned=self._owned)

    def _fill(self, parent: int, node: Node, path: bytes) -> None:
        for name, child in sorted(node.children.items()):
            here = path + b"/" + name if path else name
            try:
                self._make(parent, name, child, here)
            except OSError as error:
                if error.errno == errno.ENOSPC and child.attributes:
                    error.strerror = "no room, or attributes too large for this file system"
                raise ConfigError(f"cannot write {shown(here)}: {error.strerror}") from None

    def _make(self, parent: int, name: bytes, node: Node, path: bytes) -> None:
        if node.kind == "directory":
            os.mkdir(name, 0o700, dir_fd=parent)
            inner = os.open(name, _DIRECTORY, dir_fd=parent)
            try:
                self._fill(inner, node, path)
                self._finish(inner, node)
            finally:
                os.close(inner)
        elif (first := self._first_names.get(id(node))) is not None:
            os.link(first, name, src_dir_fd=self._top, dst_dir_fd=parent, follow_symlinks=False)
        else:
            self._first_names[id(node)] = path
            self._make_new(parent, name, node)

    def _make_new(self, parent: int, name: bytes, node: Node) -> None:
        if node.kind == "link":
            os.symlink(node.target, name, dir_fd=parent)
            if self._owned:
                os.chown(name, node.uid, node.gid, dir_fd=parent, follow_symlinks=False)
            times = (node.mtime_ns, node.mtime_ns)
            os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)
            return
        file = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            self._contents[id(node)] = self._copy(node, file)
            self._finish(file, node)
        finally:
            os.close(file)

    def _copy(self, node: Node, file: int) -> bytes:
        total = hashlib.sha256()
        for piece in self._pieces(node):
            total.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(file, view) :]
            self._done += len(piece)
            self._progress("writing", self._done, self._total)
        return total.digest()

    def _pieces(self, node: Node) -> "Sequence[bytes] | _Extent":
        if isinstance(node.content, bytes):
            return [node.content] if node.content else []
        extent = node.content
        return _Extent(self._sources[extent.source], extent.offset, extent.size)

    def _finish(self, file: int, node: Node) -> None:
        """Set owner, then mode (a change of owner takes bits away), attributes, and time last."""
        if self._owned:
            os.chown(file, node.uid, node.gid)
        os.chmod(file, node.mode)
        for name, value in self._attributes(node).items():
            os.setxattr(file, name, value)
        os.utime(file, ns=(node.mtime_ns, node.mtime_ns))

    def _attributes(self, node: Node) -> Mapping[bytes, bytes]:
        return settable(node, owned=self._owned)


class _Extent:
    """The bytes of a part of an open file, a piece at a time."""

    def __init__(self, file: int, offset: int, size: int) -> None:
        self._file, self._at, self._left = file, offset, size

    def __iter__(self) -> "_Extent":
        return self

    def __next__(self) -> bytes:
        if not self._left:
            raise StopIteration
        piece = os.pread(self._file, min(self._left, PIECE_BYTES), self._at)
        if not piece:
            raise ConfigError("a file that the image is made of became shorter meanwhile")
        self._at += len(piece)
        self._left -= len(piece)
        return piece


def settable(node: Node, *, owned: bool) -> Mapping[bytes, bytes]:
    """Return the attributes that we may set: without root only those of users."""
    if owned:
        return node.attributes
    return {name: value for name, value in node.attributes.items() if name.startswith(b"user.")}


def digest(root: Node, contents: Mapping[int, bytes], *, owned: bool) -> str:
    """Return the digest of a tree: its paths, kinds, modes, owners, attributes, targets, contents.

    `contents` holds the SHA-256 of each file by its node's identity; one that is absent has its bytes
    in the node. Times are no part of it.
    """
    total = hashlib.sha256()
    names: dict[int, bytes] = {}
    for path, node in ((b"", root), *walk(root)):
        first = names.setdefault(id(node), path)
        body = contents.get(id(node), b"")
        if node.kind == "file" and not body and isinstance(node.content, bytes):
            body = hashlib.sha256(node.content).digest()
        entry = (
            path,
            node.kind,
            node.mode,
            *((node.uid, node.gid) if owned else (0, 0)),
            sorted(settable(node, owned=owned).items()),
            node.target,
            body,
            b"" if first == path else first,
        )
        total.update(msgspec.msgpack.encode(entry))
    return total.hexdigest()


def make_durable() -> None:
    """Wait until all that was written is on disk; what is renamed into place must be whole."""
    with contextlib.suppress(OSError):
        os.sync()

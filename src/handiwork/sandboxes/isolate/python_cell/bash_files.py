"""The files that bash sees: a copy of the workspace, brought up to date before each run and written back after it.

The interpreter knows files of its own memory only. What the host has by a path is named by a version,
which is another one with each write; what the interpreter has, by a digest of its bytes and by its mode.
"""

import base64
import contextlib
import hashlib
import posixpath
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from .calls import CallError

FILE_BYTES = 8 << 20
COPY_BYTES = 32 << 20
"""Of all files together: they lie in the memory of the cell."""
DIRECTORY = 0
"""The version of every directory."""
_OWN = ("/dev", "/proc", "/bin", "/usr")
"""The interpreter's, made up by it."""
_SHOWN = 5
Ask = Callable[[str, object], Any]


class FileSystem(Protocol):
    """Files as the interpreter keeps them; every fault is an Exception."""

    def read_dir(self, path: str) -> list[dict[str, Any]]:
        """Return what a directory holds: `name` and `metadata`."""

    def stat(self, path: str) -> dict[str, Any]:
        """Return metadata: `file_type`, `size`, `mode`, `modified`."""

    def read_file(self, path: str) -> bytes:
        """Return the bytes of a file."""

    def write_file(self, path: str, content: bytes) -> None:
        """Write a file; its directory must be there."""

    def mkdir(self, path: str, recursive: bool) -> None:
        """Make a directory."""

    def remove(self, path: str, recursive: bool) -> None:
        """Remove a file or a directory."""

    def chmod(self, path: str, mode: int) -> None:
        """Set the mode of a path."""


class _Stamp(NamedTuple):
    """What is another one when a path was changed; of a directory its kind alone."""

    kind: str
    size: int = 0
    modified: float = 0.0
    mode: int = 0


class _Known(NamedTuple):
    """What both have; `digest` of a file's bytes, for its stamp may be set by a script."""

    version: int
    stamp: _Stamp
    digest: bytes = b""


class Copy:
    """Of one interpreter. `ask` calls the host and waits; CallError when it refuses."""

    def __init__(self, files: FileSystem, ask: Ask) -> None:
        self._files = files
        self._ask = ask
        self._known: dict[str, _Known] = {}
        self._told: set[str] = set()
        self._links: set[str] = set()  # of the copy, since the last run
        self._former = dict(self._walk())

    def pull(self) -> list[str]:
        """Let the copy be what the host has; returns what there is to tell about it."""
        entries, more = self._tree()
        for path in sorted(self._known.keys() - entries.keys(), reverse=True):
            self._removed(path)
        left_out, room = [], COPY_BYTES
        for path, (version, size, mode) in entries.items():
            room -= size
            known = self._known.get(path)
            if known is not None and known.version == version:
                continue
            if known is not None:
                self._removed(path)
            if size > FILE_BYTES or room < 0 or not self._pulled(path, version, mode):
                left_out.append(path)
        notes = self._news("not shown here, for they are too large or too many", left_out)
        return [*notes, "[there are more files than are shown here]"] if more else notes

    def push(self) -> list[str]:
        """Let the host have what was changed in the copy; returns what could not be."""
        now = dict(self._walk())
        failed = [*self._unwritten(now), *self._written(now)]
        self._links = {path for path, stamp in now.items() if stamp.kind == "symlink"}
        news = sorted(self._links - self._former.keys())
        return [*failed, *self._news("symbolic links, which last as long as this shell", news)]

    def _tree(self) -> tuple[dict[str, tuple[int, int, int]], bool]:
        told = self._ask("workspace.tree", {})
        entries = {path: (version, size, mode) for path, version, size, mode in told["entries"]}
        return entries, bool(told["more"])

    def _removed(self, path: str) -> None:
        """Forget a path, and remove what the copy has there."""
        del self._known[path]
        with contextlib.suppress(Exception):  # it is gone, with its directory or by the last run
            self._files.remove(path, True)

    def _pulled(self, path: str, version: int, mode: int) -> bool:
        digest = b""
        if any(path.startswith(f"{link}/") for link in self._links):
            return False
        try:
            if path in self._links:  # it would be written to where that leads
                self._files.remove(path, False)
                self._links.discard(path)
            if version == DIRECTORY:
                self._files.mkdir(path, True)
            else:
                data = base64.b64decode(self._ask("workspace.readBytes", {"path": path})["$bytes"])
                digest = _digest(data)
                self._files.write_file(path, data)
                self._files.chmod(path, mode)
            self._known[path] = _Known(version, _stamp(self._files.stat(path)), digest)
        except Exception:  # noqa: BLE001 -- of whatever kind: it has no room for it, or it went meanwhile
            return False
        return True

    def _unwritten(self, now: dict[str, _Stamp]) -> Iterator[str]:
        """Delete what the copy has no more, or has as something else; yield what could not be.

        One by one, what lies deepest first: a directory may have files that were not shown.
        """
        gone = {
            path
            for path, known in self._known.items()
            if path not in now or now[path].kind != known.stamp.kind
        }
        for path in sorted(gone, reverse=True):
            yield from self._called(path, "workspace.delete", {"path": path})
        for path in gone:
            del self._known[path]

    def _written(self, now: dict[str, _Stamp]) -> Iterator[str]:
        """Write what is new or changed in the copy, directories first; yield what could not be."""
        done: dict[str, tuple[_Stamp, bytes]] = {}
        for path, stamp in sorted(now.items(), key=lambda one: (one[1].kind != "directory", one)):
            known = self._known.get(path)
            if known is None and stamp == self._former.get(path):
                continue
            data = self._files.read_file(path) if stamp.kind == "file" else b""
            digest = _digest(data) if stamp.kind == "file" else b""
            same = known is not None and (known.digest, known.stamp.mode) == (digest, stamp.mode)
            if same and known is not None and known.stamp.kind == stamp.kind:
                continue
            problem = list(self._sent(path, stamp, data))
            yield from problem
            if not problem:
                done[path] = stamp, digest
        if done:
            entries, _ = self._tree()
            for path, (stamp, digest) in done.items():
                if path in entries:
                    self._known[path] = _Known(entries[path][0], stamp, digest)

    def _sent(self, path: str, stamp: _Stamp, data: bytes) -> Iterator[str]:
        if stamp.kind == "directory":
            yield from self._called(path, "workspace.mkdir", {"path": path})
        elif stamp.kind == "file":
            content = {"$bytes": base64.b64encode(data).decode()}
            given = {"path": path, "content": content, "mode": stamp.mode & 0o7777}
            yield from self._called(path, "workspace.write", given)

    def _called(self, path: str, name: str, given: object) -> Iterator[str]:
        try:
            self._ask(name, given)
        except (CallError, ValueError) as error:  # refused, or more than one call may be
            yield f"[not saved: {path}: {error}]"

    def _news(self, what: str, paths: list[str]) -> list[str]:
        """Return a line about paths, those alone that were not told of before."""
        new = [path for path in paths if path not in self._told]
        self._told.update(new)
        shown = ", ".join(new[:_SHOWN]) + (f" and {len(new) - _SHOWN} more" * (len(new) > _SHOWN))
        return [f"[{what}: {shown}]"] if new else []

    def _walk(self) -> Iterator[tuple[str, _Stamp]]:
        waiting = ["/"]
        while waiting:
            above = waiting.pop()
            for entry in self._files.read_dir(above):
                path = posixpath.join(above, entry["name"])
                if path not in _OWN:
                    stamp = _stamp(entry["metadata"])
                    yield path, stamp
                    if stamp.kind == "directory":
                        waiting.append(path)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _stamp(metadata: dict[str, Any]) -> _Stamp:
    kind = str(metadata["file_type"])
    if kind != "file":
        return _Stamp(kind)
    return _Stamp(kind, metadata["size"], metadata["modified"], metadata["mode"])

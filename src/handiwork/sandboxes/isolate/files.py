"""The files of an isolate, as those of every tier: over its workspace."""

import asyncio
import contextlib
import errno
import itertools
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator

from handiwork.model.errors import GuestError, SandboxUnavailableError
from handiwork.model.sandbox import FileChange, FileEvent, FileInfo
from handiwork.sandboxes.isolate.workspace import READ_WHOLE_BYTES, Node, Workspace, cleaned

WATCHES = 16
PIECE_BYTES = 1 << 16
"""Of a stream, as of every tier."""
EVENTS = 4096


class WorkspaceFiles:
    """Files by absolute path, of what `opened` returns at each call.

    Calls are short, and long ones let others go first after each chunk.
    """

    def __init__(self, opened: Callable[[], Workspace]) -> None:
        self._opened = opened
        self._watches = 0

    @property
    def _workspace(self) -> Workspace:
        return self._opened()

    async def read(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> bytes:
        """Return bytes of a file; `limit_bytes` None reads at most 256 MiB, else GuestError."""
        with _faults():
            size = self._workspace.stat(path).size - offset
        if limit_bytes is None and size > READ_WHOLE_BYTES:
            raise GuestError(f"{path}: it has {size} bytes; read it in parts", errno=errno.EFBIG)
        pieces = [
            piece async for piece in self.read_stream(path, offset=offset, limit_bytes=limit_bytes)
        ]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def write(
        self, path: str, data: bytes, *, mode: int = 0o644, parents: bool = True
    ) -> None:
        """Write a file whole or not at all."""

        async def pieces() -> AsyncIterator[bytes]:
            for at in range(0, len(data), 1 << 20):
                yield data[at : at + (1 << 20)]

        await self.write_stream(path, pieces(), mode=mode, parents=parents)

    async def read_stream(
        self, path: str, *, offset: int = 0, limit_bytes: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield bytes of a file of any size; GuestError ESTALE when it is replaced meanwhile."""
        with _faults():
            for chunk in self._workspace.read(path, offset, limit_bytes):
                for at in range(0, len(chunk), PIECE_BYTES):
                    yield chunk[at : at + PIECE_BYTES]
                await asyncio.sleep(0)

    async def write_stream(
        self,
        path: str,
        pieces: AsyncIterable[bytes],
        *,
        mode: int = 0o644,
        parents: bool = True,
    ) -> None:
        """Write a file of any size as its pieces come; whole or not at all."""
        with _faults():
            writing = self._workspace.writing(path, mode=mode, parents=parents)
            try:
                async for piece in pieces:
                    writing.add(piece)
                    if len(piece) >= 1 << 16:
                        await asyncio.sleep(0)
                writing.finish()
            finally:
                writing.abort()

    async def tree(self, *, limit: int) -> "list[Node]":
        """Return the first nodes of all, by path."""
        found: list[Node] = []
        with _faults():
            for node in itertools.islice(self._workspace.walk(), limit):
                found.append(node)
                if len(found) % 500 == 0:
                    await asyncio.sleep(0)
        return found

    async def list(self, path: str, *, limit: int = 10_000) -> list[FileInfo]:
        """Return the entries of a directory, sorted by name."""
        with _faults():
            return [node.info() for node in self._workspace.list(path, limit)]

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        """Tell what a path names; there are no links to follow."""
        del follow
        with _faults():
            return self._workspace.stat(path).info()

    async def mkdir(self, path: str, *, mode: int = 0o755, parents: bool = True) -> None:
        """Make a directory."""
        with _faults():
            self._workspace.mkdir(path, mode=mode, parents=parents)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file or directory."""
        with _faults():
            self._workspace.remove(path, recursive=recursive)

    async def move(self, source: str, target: str) -> None:
        """Rename within the workspace."""
        with _faults():
            self._workspace.move(source, target)

    async def realpath(self, path: str) -> str:
        """Return the path without `.` and `..`; its directory must be there."""
        with _faults():
            clean = cleaned(path)
            parent = clean.rpartition("/")[0] or "/"
            if not self._workspace.stat(parent).directory:
                raise GuestError(f"{path}: not a directory", errno=errno.ENOTDIR)
            return clean

    async def watch(self, path: str, *, recursive: bool = True) -> "WorkspaceWatch":
        """Watch a directory; at most 16 watches stand."""
        with _faults():
            node = self._workspace.stat(path)
        if not node.directory:
            raise GuestError(f"{path}: not a directory", errno=errno.ENOTDIR)
        if self._watches >= WATCHES:
            raise GuestError(f"{WATCHES} watches stand, the most", errno=errno.EAGAIN)
        self._watches += 1
        return WorkspaceWatch(self._workspace, node.path, self._ended, recursive=recursive)

    def _ended(self) -> None:
        self._watches -= 1


class WorkspaceWatch:
    """What changes in a directory, from the moment it was made."""

    def __init__(
        self, workspace: Workspace, path: str, ended: Callable[[], None], *, recursive: bool
    ) -> None:
        self._base = path.rstrip("/") + "/"
        self._recursive = recursive
        self._ended = ended
        self._queue: asyncio.Queue[FileEvent | None] = asyncio.Queue(EVENTS + 1)
        self._overflown = False
        self._stop = workspace.listen(self._hear)
        self._closed = False

    @property
    def directories(self) -> int:
        """How many directories were watched when it stood: all are, as one."""
        return 1

    async def events(self) -> AsyncIterator[FileEvent]:
        """Yield what changes; what nobody reads overflows, and that is told."""
        while (event := await self._queue.get()) is not None:
            if event.change is FileChange.OVERFLOW:
                self._overflown = False
            yield event

    def close(self) -> None:
        """Watch no more. No-op when it has ended."""
        if not self._closed:
            self._closed = True
            self._stop()
            self._ended()
            while not self._queue.empty():
                self._queue.get_nowait()
            self._queue.put_nowait(None)

    def _hear(self, change: FileChange, path: str, directory: bool) -> None:
        inner = path.removeprefix(self._base)
        if inner == path or self._overflown or ("/" in inner and not self._recursive):
            return
        if self._queue.qsize() >= EVENTS:
            self._overflown = True
            self._queue.put_nowait(FileEvent(change=FileChange.OVERFLOW, path=""))
            return
        self._queue.put_nowait(FileEvent(change=change, path=inner, directory=directory))


@contextlib.contextmanager
def _faults() -> Iterator[None]:
    """Tell faults of the database as such: the host's disk is full, or the file is broken."""
    try:
        yield
    except sqlite3.Error as error:
        raise SandboxUnavailableError(f"the workspace cannot be used: {error}") from None

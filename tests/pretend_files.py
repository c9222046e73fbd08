"""The files of a sandbox that only pretends, in a dict."""

import asyncio
import errno
import posixpath
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import FileChange, FileEvent, FileInfo, FileKind


class PretendFiles:
    """A name that ends in `@` is a link. `streams` are under way, of `arrived` bytes in pieces of `most`."""

    def __init__(self) -> None:
        self.content: dict[str, bytes | None] = {"/workspace": None}
        self.modes: dict[str, int] = {}
        self.watches = self.streams = self.arrived = self.most = 0

    def _check(self, path: str) -> None:
        if path not in self.content:
            raise GuestError(f"{path}: no such file or directory", errno=errno.ENOENT)

    async def read(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> bytes:
        self._check(path)
        data = self.content[path]
        if data is None:
            raise GuestError(f"{path}: is a directory", errno=errno.EISDIR)
        return data[offset:][:limit_bytes]

    async def write(
        self, path: str, data: bytes, *, mode: int = 0o644, parents: bool = True
    ) -> None:
        if parents:
            await self.mkdir(posixpath.dirname(path))
        self._check(posixpath.dirname(path))
        self.content[path] = data
        self.modes[path] = mode

    async def read_stream(
        self, path: str, *, offset: int = 0, limit_bytes: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Of `/endless` there is no end, and `/torn` breaks after its first piece."""
        self.streams += 1
        try:
            if path.startswith(("/endless", "/torn")):
                yield b"x" * 65536
            while path.startswith("/endless"):
                await asyncio.sleep(0)
                yield b"x" * 65536
            if path.startswith("/torn"):
                raise GuestError("read failed (error 5)", errno=errno.EIO)
            data = await self.read(path, offset=offset, limit_bytes=limit_bytes)
            for at in range(0, len(data), 65536):
                yield data[at : at + 65536]
        finally:
            self.streams -= 1

    async def write_stream(
        self,
        path: str,
        pieces: AsyncIterable[bytes],
        *,
        mode: int = 0o644,
        parents: bool = True,
    ) -> None:
        self.streams += 1
        try:
            if not parents:
                self._check(posixpath.dirname(path))
            self.most = 0
            data = bytearray()
            async for piece in pieces:
                data += piece
                self.most = max(self.most, len(piece))
                self.arrived = len(data)
        finally:
            self.streams -= 1
        await self.write(path, bytes(data), mode=mode, parents=parents)

    async def list(self, path: str, *, limit: int = 10_000) -> list[FileInfo]:
        self._check(path)
        names = [p for p in sorted(self.content) if p != path and posixpath.dirname(p) == path]
        return [self._info(p) for p in names][:limit]

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        self._check(path)
        return self._info(path)

    async def mkdir(self, path: str, *, mode: int = 0o755, parents: bool = True) -> None:
        while parents and path not in ("/", ""):
            self.content.setdefault(path, None)
            path = posixpath.dirname(path)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        self._check(path)
        for name in [p for p in self.content if p == path or p.startswith(path + "/")]:
            del self.content[name]

    async def move(self, source: str, target: str) -> None:
        self._check(source)
        self.content[target] = self.content.pop(source)

    async def realpath(self, path: str) -> str:
        return path

    async def watch(self, path: str, *, recursive: bool = True) -> "PretendWatch":
        self._check(path)
        self.watches += 1
        return PretendWatch(self, recursive)

    def _info(self, path: str) -> FileInfo:
        data = self.content[path]
        kind = FileKind.DIRECTORY if data is None else FileKind.FILE
        if path.endswith("@"):
            kind = FileKind.LINK
        name = path.rpartition("/")[2].replace("%2F", "/")
        return FileInfo(
            name=name,
            kind=kind,
            mode=self.modes.get(path, 0o644),
            size=len(data or b""),
            mtime_ns=0,
            uid=0,
            gid=0,
        )


class PretendWatch:
    """Two changes, then the end; without `recursive` it waits after them instead."""

    directories = 3

    def __init__(self, files: PretendFiles, recursive: bool) -> None:
        self._files = files
        self._recursive = recursive

    async def events(self) -> AsyncIterator[FileEvent]:
        yield FileEvent(change=FileChange.CREATED, path="a\udcff", directory=True)
        yield FileEvent(change=FileChange.OVERFLOW, path="")
        if not self._recursive:
            await asyncio.Event().wait()

    def close(self) -> None:
        self._files.watches -= 1

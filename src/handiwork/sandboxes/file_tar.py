"""A tar of a sandbox's files without a program inside: it has the verbs of the process that packs or unpacks.

What is unpacked went through `tree_filter`, which refuses what is no archive or leads out of it.
"""

import asyncio
import errno
import posixpath
import tarfile
from collections.abc import AsyncGenerator, AsyncIterator

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import ExecResult, FileInfo, FileKind
from handiwork.sandboxes.file_writer import FileWriter
from handiwork.sandboxes.images import tars
from handiwork.sandboxes.images.tars import BLOCK, Member
from handiwork.sandboxes.protocol import Files, Stream

LISTED = 100_000
NOTES = 100
"""So many of what was not unpacked are named."""
_DONE = ExecResult(exit_code=0, stdout=b"", stderr=b"")


class Packing:
    """Writes a directory's content, or one file, as a tar to its `output`."""

    def __init__(self, files: Files, path: str) -> None:
        self._files = files
        self._path = path

    async def output(self) -> AsyncGenerator[tuple[Stream, bytes], None]:
        """Yield the archive."""
        info = await self._files.stat(self._path)
        if info.kind is FileKind.DIRECTORY:
            async for piece in self._directory(self._path, ".", info):
                yield "stdout", piece
        else:
            name = f"./{posixpath.basename(self._path)}"
            async for piece in self._file(self._path, name, info):
                yield "stdout", piece
        yield "stdout", bytes(2 * BLOCK)

    async def wait(self) -> ExecResult:
        """Return that it ended well: what failed was raised by `output`."""
        return _DONE

    def close(self) -> None:
        """Do nothing: who stops reading has stopped it."""

    async def _directory(self, path: str, name: str, info: FileInfo) -> AsyncIterator[bytes]:
        yield _header(name, info, 0)
        for one in await self._files.list(path, limit=LISTED):
            inner, inner_name = posixpath.join(path, one.name), f"{name}/{one.name}"
            pack = self._directory if one.kind is FileKind.DIRECTORY else self._file
            async for piece in pack(inner, inner_name, one):
                yield piece

    async def _file(self, path: str, name: str, info: FileInfo) -> AsyncIterator[bytes]:
        yield _header(name, info, info.size)
        left = info.size
        async for piece in self._files.read_stream(path, limit_bytes=info.size):
            yield piece
            left -= len(piece)
        if left:
            raise GuestError(f"{path}: it changed while it was read", errno=errno.EIO)
        yield bytes(-info.size % BLOCK)


def _header(name: str, info: FileInfo, size: int) -> bytes:
    told = tarfile.TarInfo(name)
    told.type = tarfile.DIRTYPE if info.kind is FileKind.DIRECTORY else tarfile.REGTYPE
    told.size, told.mode, told.mtime = size, info.mode & 0o7777, info.mtime_ns // 1_000_000_000
    return told.tobuf(tarfile.PAX_FORMAT)


class Unpacking:
    """Makes files of the tar that is written to it; links are left out, and named in its `output`."""

    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self._directory = directory
        self._waiting = bytearray()
        self._records: dict[bytes, bytes] = {}
        self._global_records: dict[bytes, bytes] = {}
        self._writer: FileWriter | None = None
        self._content = self._padding = 0
        self._notes: list[str] = []
        self._ended = asyncio.Event()

    async def write(self, data: bytes) -> None:
        """Take more of it; GuestError when a file cannot be made."""
        self._waiting += data
        while await self._step():
            pass

    async def close_stdin(self) -> None:
        """Say that it was all."""
        self._ended.set()

    async def output(self) -> AsyncIterator[tuple[Stream, bytes]]:
        """Yield what was left out, at the end."""
        await self._ended.wait()
        if self._notes:
            yield "stderr", "\n".join(self._notes).encode()

    async def wait(self) -> ExecResult:
        """Return that it ended well: what failed was raised by `write`."""
        return _DONE

    def close(self) -> None:
        """Let go of who listens; a file that was not whole is not there."""
        self._ended.set()

    async def abandon(self) -> None:
        """Leave the file that is being written as it was."""
        writer, self._writer = self._writer, None
        if writer is not None:
            await writer.abandon()

    async def _step(self) -> bool:
        """Go on by content, padding or a header; False when more has to come first."""
        if self._content:
            return await self._add_content()
        if self._padding:
            taken = min(self._padding, len(self._waiting))
            del self._waiting[:taken]
            self._padding -= taken
            return taken > 0
        if len(self._waiting) < BLOCK:
            return False
        header = bytes(self._waiting[:BLOCK])
        if not any(header):
            self._waiting.clear()
            return False
        if header[156:157] in tars.EXTENSIONS:
            return self._extend(header)
        del self._waiting[:BLOCK]
        told = {**self._global_records, **self._records}
        self._records.clear()
        await self._enter(tars.member(header, told, tars.length_of(header, told), 0))
        return True

    async def _add_content(self) -> bool:
        part = bytes(self._waiting[: self._content])
        if not part:
            return False
        del self._waiting[: len(part)]
        self._content -= len(part)
        if self._writer is not None:
            await self._writer.write(part)
            if not self._content:
                writer, self._writer = self._writer, None
                await writer.finish()
        return True

    def _extend(self, header: bytes) -> bool:
        length = tars.number(header[124:136])
        whole = BLOCK + length + -length % BLOCK
        if len(self._waiting) < whole:
            return False
        kind = header[156:157]
        told = tars.extension(kind, bytes(self._waiting[BLOCK : BLOCK + length]))
        (self._global_records if kind == tars.PAX_GLOBAL else self._records).update(told)
        del self._waiting[:whole]
        return True

    async def _enter(self, found: Member) -> None:
        self._content, self._padding = found.size, -found.size % BLOCK
        try:
            path = posixpath.normpath(posixpath.join(self._directory, found.name.decode()))
        except UnicodeDecodeError:
            self._leave_out(found, "its name is no text")
            return
        if found.kind == "directory":
            await self._files.mkdir(path, mode=found.mode)
        elif found.kind != "file":
            self._leave_out(found, "a sandbox of this tier has no links")
        elif found.size:
            self._writer = await FileWriter.open(self._files, path, mode=found.mode)
        else:
            await self._files.write(path, b"", mode=found.mode)

    def _leave_out(self, found: Member, why: str) -> None:
        if len(self._notes) < NOTES:
            self._notes.append(f"{found.name.decode('utf-8', 'replace')[:200]}: {why}")

"""Long outputs, kept whole as files inside the sandbox; the model gets head, tail and path."""

import asyncio
import contextlib
import errno
import hashlib
import re
from typing import Protocol

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import ExecRequest, FileInfo, FileKind
from handiwork.model.tool import Block, TextBlock
from handiwork.sandboxes.file_writer import FileWriter
from handiwork.sandboxes.protocol import Files, Process, Sandbox
from handiwork.tools.excerpt import (
    HEAD_CHARACTERS,
    TAIL_CHARACTERS,
    TEXT_LIMIT,
    Excerpt,
    shortened,
)

DIRECTORY = "/workspace/.tool-output"
SPOOL_BYTES = 64 << 20
FILES_LIMIT = 64
"""So many files stay in the directory; the oldest go first."""

TOTAL_FACTOR = 4
"""All files together stay below so many times the limit of one."""

WRITE_SECONDS = 10.0
"""How long a write into the sandbox may take before the rest is given up."""

_LISTED = 4096
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_WRITE = 'mkdir -p -- "${1%/*}" && rm -rf -- "$1" && exec cat >"$1"'
_KILL = 9


class Spool:
    """The directory of long outputs in one sandbox. `limit_bytes` is kept of each."""

    def __init__(self, sandbox: Sandbox, limit_bytes: int = SPOOL_BYTES) -> None:
        self.sandbox = sandbox
        self.limit_bytes = limit_bytes
        self.pinned: set[str] = set()

    def path(self, name: str) -> str:
        """Return where the output of this name is kept; an odd name is replaced by its digest."""
        if not _NAME.fullmatch(name):
            name = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:32]
        return f"{DIRECTORY}/{name}"

    async def open(self, name: str) -> "SpoolFile":
        """Start a file; what cannot be kept is told by the file at its end."""
        path = self.path(name)
        file = SpoolFile(path, self.limit_bytes)
        try:
            await self.tidy()
            file.writer = await self._writer(path)
        except GuestError as error:
            file.failure = str(error)
        return file

    async def _writer(self, path: str) -> "Writer":
        if self.sandbox.languages:
            return await FileWriter.open(self.sandbox.files, path)
        request = ExecRequest(
            argv=("/bin/sh", "-c", _WRITE, "spool", path),
            timeout_seconds=None,
            output_limit_bytes=1024,
        )
        return _CommandWriter(await self.sandbox.start(request, stdin=True))

    async def keep(self, name: str, text: str) -> str:
        """Keep a text and return what the model reads instead of it."""
        data = text.encode("utf-8", "replace")
        file = await self.open(name)
        try:
            await file.write(data)
            note = await file.close(len(data))
        except BaseException:
            await file.abandon()
            raise
        return shortened(text[:HEAD_CHARACTERS], text[-TAIL_CHARACTERS:], note)

    async def tidy(self) -> None:
        """Remove the oldest files until one more fits; GuestError when the directory is none."""
        files = self.sandbox.files
        try:
            info = await files.stat(DIRECTORY, follow=False)
        except GuestError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        if info.kind is not FileKind.DIRECTORY:
            raise GuestError(f"{DIRECTORY} is not a directory", errno=errno.ENOTDIR)
        for name in self._surplus(await files.list(DIRECTORY, limit=_LISTED)):
            await _remove(files, f"{DIRECTORY}/{name}")

    def _surplus(self, found: list[FileInfo]) -> list[str]:
        own = [one for one in found if one.kind is FileKind.FILE and one.name not in self.pinned]
        own.sort(key=lambda one: one.mtime_ns, reverse=True)
        left = (TOTAL_FACTOR - 1) * self.limit_bytes
        surplus: list[str] = []
        for number, one in enumerate(own, 1):
            left -= one.size
            if number >= FILES_LIMIT or left < 0:
                surplus.append(one.name)
        return surplus


class Writer(Protocol):
    """What a file is written by."""

    async def write(self, data: bytes) -> None:
        """Add bytes; GuestError."""
        ...

    async def finish(self) -> None:
        """End the file; GuestError."""
        ...

    async def abandon(self) -> None:
        """Stop at once."""
        ...


class _CommandWriter:
    """A command inside, whose input becomes the file."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.write = process.write

    async def finish(self) -> None:
        await self._process.close_stdin()
        if code := (await self._process.wait()).exit_code:
            raise GuestError(f"writing it ended with exit code {code}", errno=errno.EIO)

    async def abandon(self) -> None:
        if not self._process.has_ended:
            await self._process.signal(_KILL)


class SpoolFile:
    """One output on its way into the sandbox. `failure` says why the rest is not kept."""

    def __init__(self, path: str, limit_bytes: int) -> None:
        self.path = path
        self.failure = ""
        self.writer: Writer | None = None
        self._left = limit_bytes
        self._kept = 0

    async def write(self, data: bytes) -> None:
        """Add bytes, up to the limit."""
        piece = data[: self._left]
        if not piece or self.writer is None:
            return
        try:
            async with asyncio.timeout(WRITE_SECONDS):
                await self.writer.write(piece)
        except TimeoutError:
            await self._fail(f"the sandbox took no byte for {WRITE_SECONDS:g}s")
        except GuestError as error:
            await self._fail(f"{error}; is its disk full?")
        else:
            self._left -= len(piece)
            self._kept += len(piece)

    async def close(self, total: int) -> str:
        """End the file; return a note that says where it is, and how much of `total` bytes it holds."""
        if self.writer is not None:
            try:
                async with asyncio.timeout(WRITE_SECONDS):
                    await self.writer.finish()
            except TimeoutError:
                await self._fail(f"the sandbox did not finish it in {WRITE_SECONDS:g}s")
            except GuestError as error:
                await self._fail(str(error))
        self.writer = None
        return self._note(total)

    async def abandon(self) -> None:
        """Stop writing at once."""
        writer, self.writer = self.writer, None
        if writer is not None:
            await writer.abandon()

    async def _fail(self, reason: str) -> None:
        self.failure = reason
        await self.abandon()

    def _note(self, total: int) -> str:
        told = f"{total} bytes in all, of which the beginning and the end are shown"
        if self.failure:
            return f"{told}; the rest could not be kept in {self.path}: {self.failure}"
        if self._kept < total:
            return (
                f"{told}; the first {self._kept} bytes are in {self.path}, the limit of one output"
            )
        return f"{told}; the whole is in {self.path}: read it in parts (view_range, grep, sed)"


class Collector:
    """Takes the output of one command as it comes, in bounded memory."""

    def __init__(self, spool: Spool, name: str) -> None:
        self._spool = spool
        self._name = name
        self._excerpt = Excerpt()
        self._file: SpoolFile | None = None

    async def take(self, chunk: bytes) -> None:
        """Add bytes; waits while the sandbox writes them to the file, if there is one."""
        surplus = self._excerpt.add(chunk)
        if surplus:
            await self._keep(surplus)

    async def text(self) -> str:
        """End it and return what the model reads."""
        whole = self._excerpt.whole()
        if whole is not None:
            return whole
        if not self._excerpt.overflowed:
            await self._keep(self._excerpt.overflow())
        note = await self._file.close(self._excerpt.total) if self._file else ""
        return shortened(self._excerpt.head(), self._excerpt.tail(), note)

    async def abandon(self) -> None:
        """Stop keeping at once; for a call that is cancelled."""
        if self._file is not None:
            await self._file.abandon()

    async def _keep(self, data: bytes) -> None:
        if self._file is None:
            self._file = await self._spool.open(self._name)
        await self._file.write(data)


async def within_limit(content: tuple[Block, ...], spool: Spool, name: str) -> tuple[Block, ...]:
    """Return the blocks; where their text is too long together, its head, tail and path instead."""
    texts = [block.text for block in content if isinstance(block, TextBlock)]
    if sum(map(len, texts)) <= TEXT_LIMIT:
        return content
    short = TextBlock(text=await spool.keep(name, "\n".join(texts)))
    return (short, *(block for block in content if not isinstance(block, TextBlock)))


async def _remove(files: Files, path: str) -> None:
    with contextlib.suppress(GuestError):  # somebody inside was faster, or holds it: the next time
        await files.remove(path)

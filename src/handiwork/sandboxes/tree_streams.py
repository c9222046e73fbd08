"""Whole trees of a sandbox's files as a tar, out and in, of any size.

The sandbox's own tar does the work, as root inside: it resolves every link within the sandbox's root
and writes to the sandbox's disk, and the host opens no file of a guest; where a tier runs no commands,
`file_tar` does it over its files. What goes by is filtered
(`tree_filter`), whichever side it comes from. Whoever stops listening ends the tar.
"""

import asyncio
import contextlib
import errno
import posixpath
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Protocol, TypeVar

from handiwork.model.errors import (
    ConfigError,
    GuestError,
    HandiworkError,
    UnsupportedError,
    sole,
)
from handiwork.model.sandbox import ExecRequest, ExecResult, FileKind, TreeReport
from handiwork.model.wire import MAX_EXEC_SECONDS, MAX_TREE_BYTES, MAX_TREE_ENTRIES, NOT_WHOLE
from handiwork.sandboxes.file_tar import Packing, Unpacking
from handiwork.sandboxes.protocol import Process, Sandbox, Stream
from handiwork.sandboxes.tree_filter import END, TooLargeError, TreeFilter

T = TypeVar("T")


class Inside(bytes):
    """A piece of a tar that ends within a member's content."""


STALL_SECONDS = 120.0
"""So long the sandbox's tar may neither take nor give anything."""
NOTES_BYTES = 4096
KERNEL_TREES = ("./proc", "./sys", "./dev")
"""What the kernel makes up below the sandbox's root; a tree of all of it does without."""

_CHANGED = (b"changed as we read it", b"removed before we read it")
_ENV = {"TAR_OPTIONS": "", "LC_ALL": "C.UTF-8"}


class _Packer(Protocol):
    """What writes a tar: a process, or a part of us that stands in for one."""

    def output(self) -> AsyncIterator[tuple[Stream, bytes]]: ...

    async def wait(self) -> ExecResult: ...

    def close(self) -> None: ...


class _Unpacker(_Packer, Protocol):
    """What reads one."""

    async def write(self, data: bytes) -> None: ...

    async def close_stdin(self) -> None: ...


async def pack(
    sandbox: Sandbox,
    path: str,
    *,
    most_bytes: int = MAX_TREE_BYTES,
    most_entries: int = MAX_TREE_ENTRIES,
) -> AsyncGenerator[bytes | TreeReport, None]:
    """Yield a directory, or one file, as a tar in pieces, and the report last. Close it.

    Names are relative to the directory. A piece is `Inside` where it ends within a member's content; what
    fails after the first piece ends so, so that no reader takes it for whole. GuestError for a path that is not there, a tree over a
    limit, or one that could not be read whole; UnsupportedError where the image has no tar.
    """
    process = await _packer(sandbox, path)
    sieve = TreeFilter(most_bytes=most_bytes, most_entries=most_entries)
    notes = _Notes()
    begun = False
    try:
        async with contextlib.aclosing(_read(process, sieve, notes, path)) as reading:
            async for passed in reading:
                begun = True
                yield Inside(passed) if sieve.is_inside else passed
    except HandiworkError:
        if begun and not sieve.is_inside:
            yield Inside(NOT_WHOLE)
        raise
    finally:
        process.close()
    yield END
    yield sieve.report(str(notes))


async def _read(
    process: _Packer, sieve: TreeFilter, notes: "_Notes", path: str
) -> AsyncGenerator[bytes, None]:
    """Yield what passes of what a tar writes, until it has ended well."""
    output = process.output()
    while (chunk := await _soon(anext(output, None))) is not None:
        stream, data = chunk
        if stream == "stderr":
            notes.add(data)
        elif passed := _sifted(sieve, data, path):
            yield passed
    result = await process.wait()
    if not notes.tells_whole(result) or not sieve.ended:
        why = notes.reason(result)
        raise GuestError(f"{path[:200]}: it could not be read whole: {why}", errno=errno.EIO)


async def unpack(
    sandbox: Sandbox,
    path: str,
    pieces: AsyncIterator[bytes],
    *,
    most_bytes: int = MAX_TREE_BYTES,
    most_entries: int = MAX_TREE_ENTRIES,
) -> TreeReport:
    """Unpack a tar into a directory, which is made where it is missing; all of it is root's inside.

    What fails has been unpacked in part, and its error says so: ConfigError for what is no archive,
    was cut short, leads out of the directory by its names, or is over a limit; GuestError for what
    the sandbox could not write; UnsupportedError where the image has no tar.
    """
    await sandbox.files.mkdir(path)
    sieve = TreeFilter(most_bytes=most_bytes, most_entries=most_entries)
    notes = _Notes()
    async with _unpacker(sandbox, path) as process:
        try:
            result = await _fed(process, pieces, sieve, notes)
        except HandiworkError as error:
            raise _partly(error, path, sieve) from error
    if result.exit_code or not sieve.ended:
        raise _partly(GuestError(notes.reason(result), errno=errno.EIO), path, sieve)
    return sieve.report(str(notes))


async def _packer(sandbox: Sandbox, path: str) -> _Packer:
    argv = await _packing(sandbox, path)
    if sandbox.languages:
        return Packing(sandbox.files, path)
    return await _start(sandbox, argv, stdin=False)


@contextlib.asynccontextmanager
async def _unpacker(sandbox: Sandbox, path: str) -> AsyncIterator[_Unpacker]:
    if sandbox.languages:
        unpacking = Unpacking(sandbox.files, path)
        try:
            yield unpacking
        finally:
            unpacking.close()
            await unpacking.abandon()
        return
    process = await _start(sandbox, ("tar", "-x", "-o", "-f", "-", "-C", path), stdin=True)
    try:
        yield process
    finally:
        process.close()


async def _packing(sandbox: Sandbox, path: str) -> tuple[str, ...]:
    """Return what packs a directory by its content, or one file by its name."""
    real = await sandbox.files.realpath(path)
    kind = (await sandbox.files.stat(real, follow=False)).kind
    start = ("tar", "-c", "-f", "-")
    if kind is FileKind.DIRECTORY:
        left_out = [f"--exclude={tree}" for tree in KERNEL_TREES if real == "/"]
        return (*start, *left_out, "-C", real, ".")
    if kind is FileKind.FILE:
        above, name = posixpath.split(real)
        return (*start, "-C", above, f"./{name}")
    raise GuestError(f"{path[:200]}: neither a directory nor a file", errno=errno.EINVAL)


async def _start(sandbox: Sandbox, argv: tuple[str, ...], *, stdin: bool) -> Process:
    request = ExecRequest(
        argv=argv, cwd="/", env=_ENV, timeout_seconds=MAX_EXEC_SECONDS, output_limit_bytes=0
    )
    try:
        return await sandbox.start(request, stdin=stdin)
    except GuestError as error:
        if error.errno != errno.ENOENT:
            raise
        raise UnsupportedError(
            "the sandbox's image has no tar: use one that has, or copy file by file"
        ) from error


async def _fed(
    process: _Unpacker, pieces: AsyncIterator[bytes], sieve: TreeFilter, notes: "_Notes"
) -> ExecResult:
    """Feed the tar, hear what it says meanwhile, and return how it ended."""
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(notes.read(process))
            await _feed(process, pieces, sieve)
            return await _soon(process.wait())
    except BaseExceptionGroup as raised:
        raise sole(raised) from None


async def _feed(process: _Unpacker, pieces: AsyncIterator[bytes], sieve: TreeFilter) -> None:
    """Give the tar what passes. One that ends early has its reason, which is asked for when it is over."""
    async for piece in pieces:
        passed = sieve.take(piece)
        if passed and not await _written(process, passed):
            return
        if sieve.ended:
            await _drop(pieces, sieve)
            break
    if not sieve.ended:
        raise ConfigError("the archive was cut short")
    if await _written(process, END):
        await process.close_stdin()


async def _drop(pieces: AsyncIterator[bytes], sieve: TreeFilter) -> None:
    """Take what a sender has after its archive's end, as far as it comes in time: nobody needs it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(STALL_SECONDS):
            async for piece in pieces:
                sieve.take(piece)


async def _written(process: _Unpacker, data: bytes) -> bool:
    try:
        await _soon(process.write(data))
    except GuestError as error:
        if error.errno != errno.EPIPE:
            raise
        return False
    return True


async def _soon(step: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(STALL_SECONDS):
            return await step
    except TimeoutError:
        raise GuestError(
            f"the sandbox's tar stood still for {STALL_SECONDS:g} s", errno=errno.ETIMEDOUT
        ) from None


def _sifted(sieve: TreeFilter, data: bytes, path: str) -> bytes:
    """Return what passes of what a guest sent: its faults are the guest's, not the caller's."""
    try:
        return sieve.take(data)
    except ConfigError as error:
        number = errno.EFBIG if isinstance(error, TooLargeError) else errno.EBADMSG
        raise GuestError(f"{path[:200]}: {error}", errno=number) from None


def _partly(error: HandiworkError, path: str, sieve: TreeFilter) -> HandiworkError:
    """Return the error with what it left behind; what is no error of ours as it is."""
    entries = sieve.report().entries
    told = f"{path[:200]}: {error}; what could be of the {entries} entries up to there is unpacked"
    if isinstance(error, GuestError):
        return GuestError(told, errno=error.errno)
    return ConfigError(told) if isinstance(error, ConfigError) else error


class _Notes:
    """The first of what a tar says of itself; it is the guest's, and the rest is read and dropped."""

    def __init__(self) -> None:
        self._said = bytearray()
        self._last = b""
        self._changed = False

    def __str__(self) -> str:
        text = self._said.decode("utf-8", "replace")
        return "; ".join("".join(c for c in line if c.isprintable()) for line in text.splitlines())

    def add(self, data: bytes) -> None:
        """Keep it, as far as there is room; what it says of changes is known wherever it is said."""
        seen = self._last + data
        self._changed = self._changed or any(text in seen for text in _CHANGED)
        self._last = seen[1 - max(map(len, _CHANGED)) :]
        self._said += data[: NOTES_BYTES - len(self._said)]

    async def read(self, process: _Packer) -> None:
        """Keep what a process that writes nothing else says, to its end."""
        async for _, data in process.output():
            self.add(data)

    def tells_whole(self, result: ExecResult) -> bool:
        """Say whether a tree was read whole: GNU's 1 is a file that changed meanwhile, others' a fault."""
        return result.exit_code == 0 or (result.exit_code == 1 and self._changed)

    def reason(self, result: ExecResult) -> str:
        """Say why it did not end well."""
        if result.timed_out:
            return f"it took longer than {MAX_EXEC_SECONDS} s"
        return str(self) or f"the sandbox's tar ended early, with exit code {result.exit_code}"

"""Whole directories in and out of a sandbox.

What a guest says of its files is hostile: a name that is more than a name, a link, or a special
file is left out and told; nothing is written outside of the target, and never through a link.
"""

import asyncio
import contextlib
import os
import stat
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import IO, Protocol

import msgspec

from handiwork.client.snapshots import pieces_of
from handiwork.model.errors import ConfigError, HandiworkError
from handiwork.model.sandbox import FileInfo, FileKind
from handiwork.model.wire import MAX_LIST

MAX_DEPTH = 64
MAX_ENTRIES = 100_000
MAX_BYTES = 4 * 1024 * 1024 * 1024
MAX_NAME_BYTES = 255

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """What was copied, and what was left out: links, special files, names that are none."""

    files: int
    bytes: int
    skipped: tuple[str, ...]


class Remote(Protocol):
    """The files of a sandbox, as far as copying needs them."""

    def read_stream(self, path: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Yield the pieces of a file."""
        ...

    async def write_stream(
        self, path: str, pieces: AsyncIterable[bytes], *, mode: int = 0o644
    ) -> None:
        """Write a file and the directories above it."""
        ...

    async def list(self, path: str, *, limit: int = MAX_LIST) -> list[FileInfo]:
        """Return the entries of a directory."""
        ...

    async def mkdir(self, path: str) -> None:
        """Make a directory and those above it."""
        ...


def is_name(text: str) -> bool:
    """Say whether a text from a guest can name an entry of a directory, and only that."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return False
    return 0 < size <= MAX_NAME_BYTES and text not in (".", "..") and not set(text) & {"/", "\0"}


def write_below(target: Path, path: str, data: bytes) -> bool:
    """Write one file beneath a directory of ours; False when its path is not one of plain names."""
    *above, name = path.split("/")
    if len(above) > MAX_DEPTH or not all(map(is_name, (*above, name))):
        return False
    with contextlib.ExitStack() as stack:
        place = os.open(target, _DIRECTORY & ~os.O_NOFOLLOW)
        stack.callback(os.close, place)
        for one in above:
            place = stack.enter_context(_subdirectory(one, place))
        with os.fdopen(_new_file(name, place, 0o644), "wb") as file:
            file.write(data)
    return True


class Download:
    """Copies one directory of a guest beneath one of ours, which is made where it is missing."""

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self._entries = 0
        self._files = 0
        self._bytes = 0
        self._skipped: list[str] = []

    async def run(self, source: str, target: Path) -> Transfer:
        """Copy; HandiworkError when the guest's tree is over a limit."""
        target.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, _DIRECTORY & ~os.O_NOFOLLOW)
        try:
            await self._directory(source.rstrip("/") or "/", descriptor, depth=0)
        finally:
            os.close(descriptor)
        return Transfer(files=self._files, bytes=self._bytes, skipped=tuple(self._skipped))

    async def _directory(self, source: str, target: int, *, depth: int) -> None:
        entries = await self._remote.list(source, limit=MAX_LIST)
        self._entries += len(entries)
        if depth > MAX_DEPTH or self._entries > MAX_ENTRIES or len(entries) >= MAX_LIST:
            raise HandiworkError(f"{source}: too deep or too many entries to download")
        for entry in entries:
            path = f"{source.rstrip('/')}/{entry.name}"
            if not is_name(entry.name):
                self._skipped.append(path)
            elif entry.kind is FileKind.DIRECTORY:
                with _subdirectory(entry.name, target) as inside:
                    await self._directory(path, inside, depth=depth + 1)
            elif entry.kind is FileKind.FILE:
                await self._file(path, entry, target)
            else:
                self._skipped.append(path)

    async def _file(self, source: str, entry: FileInfo, target: int) -> None:
        mode = 0o755 if entry.mode & 0o100 else 0o644
        with os.fdopen(_new_file(entry.name, target, mode), "wb") as file:
            async with self._remote.read_stream(source) as pieces:
                async for data in pieces:
                    self._bytes += len(data)
                    if self._bytes > MAX_BYTES:
                        raise HandiworkError(f"{source}: more than {MAX_BYTES} bytes to download")
                    await asyncio.to_thread(file.write, data)
        self._files += 1


@contextlib.contextmanager
def _subdirectory(name: str, parent: int) -> Iterator[int]:
    """Make and open a directory beneath an open one."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
    descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _new_file(name: str, parent: int, mode: int) -> int:
    """Make a file, in place of whatever is there but a directory; what is there is not opened."""
    try:
        return os.open(name, _NEW_FILE, mode, dir_fd=parent)
    except FileExistsError:
        os.unlink(name, dir_fd=parent)
        return os.open(name, _NEW_FILE, mode, dir_fd=parent)


async def upload(remote: Remote, source: Path, target: str) -> Transfer:
    """Copy a directory of ours into a guest; links and special files are left out."""
    if not source.is_dir():
        raise ConfigError(f"{source}: not a directory")
    files, sent, skipped = 0, 0, list[str]()
    base = target.rstrip("/")
    await remote.mkdir(base or "/")
    for path, facts in _walk(source):
        inside = f"{base}/{path.relative_to(source).as_posix()}"
        if stat.S_ISDIR(facts.st_mode):
            await remote.mkdir(inside)
        elif stat.S_ISREG(facts.st_mode):
            with await asyncio.to_thread(_opened, path) as file:
                await remote.write_stream(inside, pieces_of(file), mode=facts.st_mode & 0o777)
                files, sent = files + 1, sent + file.tell()
        else:
            skipped.append(str(path))
    return Transfer(files=files, bytes=sent, skipped=tuple(skipped))


def _walk(top: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in sorted(top.iterdir()):
        facts = path.lstat()
        yield path, facts
        if stat.S_ISDIR(facts.st_mode):
            yield from _walk(path)


def _opened(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")

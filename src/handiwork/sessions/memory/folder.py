"""One memory store's folder in a sandbox, through the sandbox's files API.

A marker in the folder names the store; only a folder that bears it is trusted to speak for it.
Files that no store takes (too large, no text, no plain file) are told by a fingerprint of their
own: they are there, and are not sent.
"""

import errno
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from handiwork.model.errors import ConflictError, GuestError
from handiwork.model.sandbox import FileInfo, FileKind
from handiwork.sandboxes.protocol import Files
from handiwork.sessions.walk import walk

MARKER = ".anthropic-memory-store"
MAX_MEMORY_BYTES = 102_400
MAX_FILES = 5000
MAX_DEPTH = 20
UNFIT = "!"
"""Begins the fingerprint of a file that no store takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What the folder holds: SHA-256 or UNFIT fingerprint by path. `marked` says whose it is."""

    files: Mapping[str, str]
    marked: bool


class Folder:
    """The folder of one store at `root`. `read_only` files are made so for the sandbox's users."""

    def __init__(self, root: str, store_id: str, *, read_only: bool) -> None:
        self.root = root
        self._marker = f"version 1\n{store_id}".encode()
        self._mode = 0o444 if read_only else 0o644
        self._hashes: dict[str, tuple[tuple[int, int], str]] = {}

    async def make(self, files: Files, *, fresh: bool) -> None:
        """Make it, empty and marked. In a `fresh` sandbox nothing may be in its place."""
        parent = self.root.rpartition("/")[0]
        if await _is_other_than_directory(files, parent):
            await files.remove(parent)
        if await _exists(files, self.root):
            if fresh:
                raise ConflictError(f"the image has something at {self.root} already")
            await files.remove(self.root, recursive=True)
        await self.mark(files)

    async def mark(self, files: Files) -> None:
        """Make the folder where it is missing, and its marker."""
        await files.mkdir(self.root)
        await files.write(f"{self.root}/{MARKER}", self._marker, mode=0o444)

    async def remove(self, files: Files) -> None:
        """Remove it with all it holds."""
        self._hashes.clear()
        if await _exists(files, self.root):
            await files.remove(self.root, recursive=True)

    async def scan(self, files: Files, *, whole: bool) -> Scan:
        """Look at every file; `whole` reads those again whose size and time are as they were."""
        found = await walk(files, self.root, entries=MAX_FILES, depth=MAX_DEPTH) or []
        named = {one.path: one.info for one in found if one.is_named and one.path != MARKER}
        known = {} if whole else self._hashes
        self._hashes = {}
        for path, info in named.items():
            seen = (info.size, info.mtime_ns)
            former = known.get(path)
            if former is not None and former[0] == seen:
                self._hashes[path] = former
            elif (fingerprint := await self._fingerprint(files, path, info)) is not None:
                self._hashes[path] = (seen, fingerprint)
        marked = any(one.path == MARKER for one in found) and await self.is_marked(files)
        return Scan(
            files={path: fingerprint for path, (_, fingerprint) in self._hashes.items()},
            marked=marked,
        )

    async def is_marked(self, files: Files) -> bool:
        """Say whether the marker is there and names this store."""
        return await self.content(files, MARKER) == self._marker

    async def content(self, files: Files, path: str) -> bytes | None:
        """Return a file's bytes, at most one more than a memory may have; None without the file."""
        try:
            return await files.read(f"{self.root}/{path}", limit_bytes=MAX_MEMORY_BYTES + 1)
        except GuestError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise

    async def write(self, files: Files, path: str, content: str) -> None:
        """Write a memory; GuestError when there is something else in its way."""
        await files.write(f"{self.root}/{path}", content.encode(), mode=self._mode)

    async def drop(self, files: Files, path: str, sha256: str) -> bool:
        """Remove a file that is still as it was; False when it is not."""
        content = await self.content(files, path)
        if content is None:
            return True
        if digest(content) != sha256:
            return False
        await files.remove(f"{self.root}/{path}")
        return True

    async def _fingerprint(self, files: Files, path: str, info: FileInfo) -> str | None:
        if info.kind is not FileKind.FILE:
            return f"{UNFIT}it is not a plain file"
        if info.size > MAX_MEMORY_BYTES:
            return f"{UNFIT}it is larger than {MAX_MEMORY_BYTES} bytes"
        content = await self.content(files, path)
        if content is None:
            return None
        if len(content) > MAX_MEMORY_BYTES:
            return f"{UNFIT}it is larger than {MAX_MEMORY_BYTES} bytes"
        try:
            content.decode()
        except UnicodeDecodeError:
            return f"{UNFIT}it is not UTF-8 text"
        return digest(content)


def digest(content: bytes) -> str:
    """Return the SHA-256 that the service compares memories by."""
    return hashlib.sha256(content).hexdigest()


def memory_path(path: str) -> str | None:
    """Return a memory's path within the folder; None for one that has no place in it."""
    parts = path.removeprefix("/").split("/")
    if any(part in ("", ".", "..") or "\0" in part or len(part.encode()) > 255 for part in parts):
        return None
    if len(parts) > MAX_DEPTH or parts == [MARKER]:
        return None
    return "/".join(parts)


async def _exists(files: Files, path: str) -> bool:
    try:
        await files.stat(path, follow=False)
    except GuestError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return False
        raise
    return True


async def _is_other_than_directory(files: Files, path: str) -> bool:
    if not await _exists(files, path):
        return False
    return (await files.stat(path, follow=False)).kind is not FileKind.DIRECTORY

"""Downloaded archives on disk, bounded in size; those unused for longest go first.

It may be emptied at any time. What comes out is checked by its digest, and is as hostile as it was.
"""

import asyncio
import hashlib
import os
from pathlib import Path

LIMIT_BYTES = 512 * 1024 * 1024
_DIGEST_BYTES = 32


class ArchiveCache:
    """Archives by key. One that does not fit, or cannot be written, is not kept."""

    def __init__(self, directory: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self._directory = directory
        self._limit = limit_bytes
        self._lock = asyncio.Lock()

    async def get(self, key: str) -> bytes | None:
        """Return what was kept under the key."""
        return await asyncio.to_thread(self._read, self._path(key))

    async def put(self, key: str, archive: bytes) -> None:
        """Keep an archive; OSError when the disk does not take it."""
        if len(archive) > self._limit:
            return
        async with self._lock:
            await asyncio.to_thread(self._write, self._path(key), archive)

    async def drop(self, key: str) -> None:
        """Forget what is kept under the key."""
        await asyncio.to_thread(self._path(key).unlink, missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._directory / f"{hashlib.sha256(key.encode()).hexdigest()}.archive"

    def _read(self, path: Path) -> bytes | None:
        try:
            with path.open("rb") as file:
                kept = file.read(self._limit + _DIGEST_BYTES)
            os.utime(path)
        except FileNotFoundError:
            return None
        archive = kept[_DIGEST_BYTES:]
        return archive if hashlib.sha256(archive).digest() == kept[:_DIGEST_BYTES] else None

    def _write(self, path: Path, archive: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(len(archive) + _DIGEST_BYTES)
        draft = path.with_suffix(".new")
        draft.write_bytes(hashlib.sha256(archive).digest() + archive)
        draft.rename(path)

    def _make_room(self, size: int) -> None:
        """Remove what was used least lately until this much fits."""
        kept = [(path.stat(), path) for path in self._directory.iterdir()]
        kept.sort(key=lambda one: one[0].st_mtime_ns)
        total = sum(facts.st_size for facts, _ in kept)
        for facts, path in kept:
            if total + size <= self._limit:
                return
            path.unlink()
            total -= facts.st_size

"""`box.snapshots`: what a sandbox wrote, kept elsewhere."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from handiwork.client.link import Link, Query, part
from handiwork.client.new_file import new_file
from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import SandboxRecord
from handiwork.model.snapshot import Snapshot, SnapshotDiff, SnapshotState
from handiwork.model.wire import RollbackBody

END = b"HWFILE.\n"
"""The last bytes of a file that is whole."""
PIECE_BYTES = 1 << 20
TAKE_SECONDS = 3600.0
"""A large tree over a slow line takes its time; its sandbox runs on long before."""
DIFF_SECONDS = 1800.0
"""What a diff may have to read takes its time, and one waits for the other. Who leaves ends theirs."""


class Snapshots:
    """Snapshots of one sandbox, by number."""

    def __init__(self, link: Link, path: str) -> None:
        self._link = link
        self._path = path

    async def state(self) -> SnapshotState:
        """Return all of them, the newest first, and how the last try went."""
        return await self._link.get(f"{self._path}/snapshots", SnapshotState)

    async def list(self) -> list[Snapshot]:
        """Return all of them, the newest first."""
        return list((await self.state()).snapshots)

    async def take(self) -> Snapshot:
        """Take one now."""
        return await self._link.send(
            "POST", f"{self._path}/snapshots", Snapshot, seconds=TAKE_SECONDS
        )

    async def rollback(self, number: int, *, keep_present: bool = True) -> SandboxRecord:
        """Put one in the place of the sandbox's files, which are taken before unless given up."""
        return await self._link.send(
            "POST",
            f"{self._path}/snapshots/{number:d}/rollback",
            SandboxRecord,
            RollbackBody(keep_present=keep_present),
            seconds=TAKE_SECONDS,
        )

    async def diff(
        self, before: int, after: int, *, path: str = "", limit: int = 1000
    ) -> SnapshotDiff:
        """Tell what differs between two, below a path."""
        query: Query = {"before": before, "after": after, "path": path, "limit": limit}
        return await self._link.get(
            f"{self._path}/snapshots/diff", SnapshotDiff, query, seconds=DIFF_SECONDS
        )

    async def pin(self, number: int, name: str) -> None:
        """Keep one under a name until that is removed."""
        await self._link.raw("PUT", f"{self._path}/pins/{part(name)}", query={"number": number})

    async def unpin(self, name: str) -> None:
        """Remove a name."""
        await self._link.raw("DELETE", f"{self._path}/pins/{part(name)}")

    async def export(self, number: int, path: str | os.PathLike[str]) -> int:
        """Write one to a new file of this machine, whole or not at all; return its bytes.

        Whoever has the file can read it: its key is in it.
        """
        place = f"{self._path}/snapshots/{number:d}/export"
        with new_file(Path(path), mode=0o600) as file:
            async with self._link.stream("GET", place, seconds=TAKE_SECONDS) as pieces:
                size = await _written(file, pieces)
            if await asyncio.to_thread(_tail, file) != END:
                raise HandiworkError("the file was cut short: the control plane stopped")
        return size

    async def remove(self, number: int) -> None:
        """Forget one that is not pinned."""
        await self._link.raw("DELETE", f"{self._path}/snapshots/{number:d}")


async def _written(file: IO[bytes], pieces: AsyncIterator[bytes]) -> int:
    size = 0
    async for piece in pieces:
        size += await asyncio.to_thread(file.write, piece)
    return size


def _tail(file: IO[bytes]) -> bytes:
    file.seek(-len(END), os.SEEK_END)
    return file.read()


async def pieces_of(file: IO[bytes]) -> AsyncIterator[bytes]:
    """Yield what an open file holds."""
    while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
        yield piece

"""Files of one sandbox over a channel to its guest agent.

The host never opens a guest's tree by path: each call is a request to the agent, which acts as
inside root, within the sandbox's own root.
"""

import asyncio
import errno
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import cast

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import FileInfo
from handiwork.sandboxes import frames
from handiwork.sandboxes.channel import Channel, Request, finish
from handiwork.sandboxes.commands import file_info, guest_text, path_bytes
from handiwork.sandboxes.frames import Frame, FrameError
from handiwork.sandboxes.guest_transfers import read_pieces, write_pieces
from handiwork.sandboxes.guest_watch import GuestWatch

READ_LIMIT_BYTES = 256 * 1024 * 1024
CALL_SECONDS = 300.0
"""How long one call may take before its sandbox is taken for broken."""

MAX_TRANSFERS = 32
"""Streams of one sandbox at once: the rest of its channel's requests are for all else."""

CANCEL = frames.Cancel()


class GuestFiles:
    """Files by absolute path inside."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._transfers = asyncio.Semaphore(MAX_TRANSFERS)

    async def read(self, path: str, *, offset: int = 0, limit_bytes: int | None = None) -> bytes:
        """Return bytes of a regular file; `limit_bytes` None reads at most 256 MiB, else GuestError."""
        limit = READ_LIMIT_BYTES + 1 if limit_bytes is None else max(1, limit_bytes)
        chunks: list[bytes] = []
        size = 0

        def take(frame: Frame) -> None:
            nonlocal size
            data = cast("frames.Body", frame).data
            size += len(data)
            if size > limit:
                raise FrameError("the guest sent more of a file than was asked for")
            chunks.append(data)
            request.consumed(len(data))

        asked = frames.Read(offset, limit, path_bytes(path))
        request: Request = await self._channel.open(
            asked, frames.End, (frames.Body,), sink=take, seconds=CALL_SECONDS
        )
        await finish(request, CANCEL)
        if limit_bytes is None and size > READ_LIMIT_BYTES:
            raise GuestError(
                f"{path[:200]} is larger than {READ_LIMIT_BYTES} bytes: read it in parts",
                errno=errno.EFBIG,
            )
        return b"".join(chunks)[:limit_bytes]

    async def write(
        self, path: str, data: bytes, *, mode: int = 0o644, parents: bool = True
    ) -> None:
        """Write a file whole or not at all."""
        flags = frames.WRITE_PARENTS if parents else 0
        asked = frames.Write(mode, flags, 0, 0, path_bytes(path))
        request = await self._channel.open(
            asked, frames.Ok, (frames.Grant,), seconds=CALL_SECONDS, outbox=data
        )
        await finish(request, CANCEL)

    async def read_stream(
        self, path: str, *, offset: int = 0, limit_bytes: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """Yield bytes of a regular file of any size; of a sandbox 32 streams go on, one more waits."""
        name = path_bytes(path)
        async with (
            self._transfers,
            aclosing(
                read_pieces(self._channel, name, offset=offset, limit_bytes=limit_bytes)
            ) as pieces,
        ):
            async for piece in pieces:
                yield piece

    async def write_stream(
        self,
        path: str,
        pieces: AsyncIterable[bytes],
        *,
        mode: int = 0o644,
        parents: bool = True,
    ) -> None:
        """Write a file of any size, whole or not at all, as its pieces come."""
        flags = frames.WRITE_PARENTS if parents else 0
        asked = frames.Write(mode, flags, 0, 0, path_bytes(path))
        async with self._transfers:
            await write_pieces(self._channel, asked, pieces)

    async def list(self, path: str, *, limit: int = 10_000) -> list[FileInfo]:
        """Return the entries of a directory, sorted by name."""
        found: list[FileInfo] = []
        most = max(1, limit)  # 0 would ask the agent for all

        def take(frame: Frame) -> None:
            entries = cast("frames.Entries", frame).items
            if len(found) + len(entries) > most:
                raise FrameError("the guest sent more entries than were asked for")
            if not all(map(_is_name, entries)):
                raise FrameError("the guest sent an entry that no directory can hold")
            found.extend(file_info(guest_text(entry.name), entry) for entry in entries)

        asked = frames.List(most, path_bytes(path))
        request = await self._channel.open(
            asked, frames.End, (frames.Entries,), sink=take, seconds=CALL_SECONDS
        )
        await finish(request, CANCEL)
        return sorted(found[:limit], key=lambda entry: entry.name)

    async def stat(self, path: str, *, follow: bool = True) -> FileInfo:
        """Tell what a path names; `name` is its last part."""
        flags = frames.STAT_FOLLOW if follow else 0
        found = await self._call(frames.Stat(flags, path_bytes(path)), frames.Info)
        return file_info(path.rstrip("/").rpartition("/")[2] or "/", cast("frames.Info", found))

    async def mkdir(self, path: str, *, mode: int = 0o755, parents: bool = True) -> None:
        """Make a directory."""
        flags = frames.MKDIR_PARENTS if parents else 0
        await self._call(frames.Mkdir(mode, flags, 0, 0, path_bytes(path)), frames.Ok)

    async def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, link or directory; links are never followed."""
        flags = frames.REMOVE_RECURSIVE if recursive else 0
        await self._call(frames.Remove(flags, path_bytes(path)), frames.Ok)

    async def move(self, source: str, target: str) -> None:
        """Rename within the sandbox."""
        await self._call(frames.Move(path_bytes(source), path_bytes(target)), frames.Ok)

    async def watch(self, path: str, *, recursive: bool = True) -> GuestWatch:
        """Watch a directory, and with `recursive` those below it."""
        watch = GuestWatch(self._channel)
        await watch.open(path, recursive=recursive)
        return watch

    async def realpath(self, path: str) -> str:
        """Return the path with every link resolved; the last part may be missing."""
        found = await self._call(frames.Realpath(path_bytes(path)), frames.Name)
        return guest_text(cast("frames.Name", found).name)

    async def _call(self, asked: Frame, closes: type[Frame]) -> Frame:
        request = await self._channel.open(asked, closes, seconds=CALL_SECONDS)
        return await finish(request, CANCEL)


def _is_name(entry: frames.Entry) -> bool:
    return entry.name not in {b"", b".", b".."} and not {0, ord("/")} & set(entry.name)

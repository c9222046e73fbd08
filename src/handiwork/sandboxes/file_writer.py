"""A file of a sandbox that is written as its bytes come, where no command could do it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Self

from handiwork.model.errors import HandiworkError
from handiwork.sandboxes.protocol import Files

PIECES = 4
"""So many wait to be written; who brings one more waits."""


class FileWriter:
    """One file: `write`, then `finish`, or `abandon` in any other case. It is there whole or not at all."""

    def __init__(self, files: Files, path: str, mode: int) -> None:
        self._files = files
        self._path = path
        self._mode = mode
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(PIECES)
        self._group = asyncio.TaskGroup()
        self._writing: asyncio.Task[None]
        self._error: HandiworkError | None = None

    @classmethod
    async def open(cls, files: Files, path: str, *, mode: int = 0o644) -> Self:
        """Return one whose file is being written."""
        made = cls(files, path, mode)
        await made._group.__aenter__()
        made._writing = made._group.create_task(made._write())
        return made

    async def write(self, data: bytes) -> None:
        """Add bytes; GuestError when the file cannot be written."""
        self._raise()
        await self._pieces.put(data)

    async def finish(self) -> None:
        """Let it be the file; GuestError."""
        if not self._writing.done():
            await self._pieces.put(None)
        await self._group.__aexit__(None, None, None)
        self._raise()

    async def abandon(self) -> None:
        """Leave what was there before."""
        self._writing.cancel()
        await self._group.__aexit__(None, None, None)

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    async def _write(self) -> None:
        try:
            await self._files.write_stream(self._path, self._given(), mode=self._mode)
        except HandiworkError as error:
            self._error = error
        while not self._pieces.empty():  # nobody waits for what is not written any more
            self._pieces.get_nowait()

    async def _given(self) -> AsyncIterator[bytes]:
        while (piece := await self._pieces.get()) is not None:
            yield piece

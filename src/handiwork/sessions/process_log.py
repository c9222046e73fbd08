"""What a process wrote last: a ring of bounded size, read by position. Pure."""

from collections import deque
from dataclasses import dataclass
from typing import Literal

Stream = Literal["stdout", "stderr"]
PIECE_BYTES = 4096
"""What one piece holds at most: so much is dropped at once, and an object costs more than a byte."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of one stream; `at` counts what both streams had written before them."""

    at: int
    stream: Stream
    data: bytes


class ProcessLog:
    """Keeps the last `limit_bytes` of both streams together, in the order in which they came."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._pieces: deque[Chunk] = deque()
        self._kept = 0
        self.end = 0
        """How many bytes were written in all."""

    @property
    def start(self) -> int:
        """Position of the first byte that is kept."""
        return self._pieces[0].at if self._pieces else self.end

    def add(self, stream: Stream, data: bytes) -> None:
        """Take what was written; the oldest pieces go."""
        for at in range(0, len(data), PIECE_BYTES):
            self._add(stream, data[at : at + PIECE_BYTES])
        while self._kept > self._limit:
            self._kept -= len(self._pieces.popleft().data)

    def _add(self, stream: Stream, piece: bytes) -> None:
        last = self._pieces[-1] if self._pieces else None
        if last and last.stream == stream and len(last.data) + len(piece) <= PIECE_BYTES:
            self._pieces[-1] = Chunk(last.at, stream, last.data + piece)
        else:
            self._pieces.append(Chunk(self.end, stream, piece))
        self.end += len(piece)
        self._kept += len(piece)

    def read(self, after: int) -> list[Chunk]:
        """Return what is kept from a position on; what is not kept any more is left out."""
        return [
            chunk
            if chunk.at >= after
            else Chunk(after, chunk.stream, chunk.data[after - chunk.at :])
            for chunk in self._pieces
            if chunk.at + len(chunk.data) > after
        ]

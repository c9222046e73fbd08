"""Bytes of an archive in, its files out: zip, tar, tar.gz, tar.bz2, tar.xz. Pure and bounded."""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Protocol

from handiwork.sessions.archives import tars, zips
from handiwork.sessions.archives.rules import (
    ArchiveError,
    ArchiveFile,
    ArchiveLimits,
    Budget,
    Tree,
)

PIECE_BYTES = 64 * 1024
XZ_MEMORY_BYTES = 128 * 1024 * 1024


class _Unpacking(Protocol):
    """One compressed stream, as `bz2` and `lzma` spell it."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """A gzip stream behind the same verbs."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max(0, max_length))


_COMPRESSIONS: tuple[tuple[bytes, Callable[[], _Unpacking]], ...] = (
    (b"\x1f\x8b", _Gzip),
    (b"BZh", bz2.BZ2Decompressor),
    (
        b"\xfd7zXZ\0",
        lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES),
    ),
)


def unpack(
    data: bytes,
    limits: ArchiveLimits | None = None,
    *,
    expired: Callable[[], bool] = lambda: False,
) -> tuple[ArchiveFile, ...]:
    """Return the archive's files by path, the one top directory stripped; ArchiveError.

    `expired` is asked now and then; once true, unpacking ends.
    """
    budget = Budget(limits or ArchiveLimits(), len(data), expired)
    tree = Tree(budget)
    if data.startswith(zips.MAGIC):
        zips.read(data, tree, budget)
        return tree.done()
    plain = data
    for magic, make in _COMPRESSIONS:
        if data.startswith(magic):
            plain = _inflated(data, make(), budget)
            break
    if not tars.looks_like_tar(plain):
        raise ArchiveError("this is neither a zip nor a tar archive")
    tars.read(plain, tree, budget)
    return tree.done()


def _inflated(data: bytes, stream: _Unpacking, budget: Budget) -> bytes:
    """Return what one compressed stream holds, a piece at a time."""
    out = bytearray()
    at = 0
    try:
        while not stream.eof:
            fresh = b""
            if stream.needs_input:
                fresh = data[at : at + PIECE_BYTES]
                at += len(fresh)
            piece = stream.decompress(fresh, PIECE_BYTES)
            if not fresh and not piece and not stream.eof:
                raise ArchiveError("the compressed archive is cut short")
            budget.spend(len(piece))
            out += piece
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ArchiveError(f"the compressed archive is malformed: {error}") from None
    if stream.unused_data.strip(b"\0") or data[at:].strip(b"\0"):
        raise ArchiveError("the compressed archive has bytes that belong to nothing")
    return bytes(out)

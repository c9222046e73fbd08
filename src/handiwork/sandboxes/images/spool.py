"""What an image is made from, in files without a name: gone with the descriptor, changed by nobody."""

import hashlib
import itertools
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from handiwork.model.errors import ConfigError, SandboxUnavailableError
from handiwork.sandboxes.images.rules import RATIO_COUNTS_FROM_BYTES, ImageLimits

PIECE_BYTES = 1 << 20
GZIP = b"\x1f\x8b"
_MAGIC_BYTES = 8
_OTHERS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}


def unnamed(directory: Path) -> int:
    """Return a new file below the directory that has no name."""
    return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)


def pieces(file: int, offset: int, size: int) -> Iterator[bytes]:
    """Yield the bytes of a part of an open file; ConfigError when there are fewer."""
    while size:
        piece = os.pread(file, min(PIECE_BYTES, size), offset)
        if not piece:
            raise ConfigError("the archive is cut short")
        yield piece
        offset += len(piece)
        size -= len(piece)


def fill(file: int, source: Iterable[bytes], limit: int) -> int:
    """Write all of a stream and return how much that was; ConfigError over the limit."""
    total = 0
    for piece in source:
        total += len(piece)
        if total > limit:
            raise ConfigError(f"the archive is larger than {limit} bytes")
        try:
            _write(file, piece)
        except OSError as error:
            raise SandboxUnavailableError(
                f"there is no room for the archive in the data directory: {error.strerror}"
            ) from None
    return total


def plain(source: Iterable[bytes], limits: ImageLimits) -> Iterator[bytes]:
    """Yield a stream's bytes without the gzip compression that they may have."""
    stream = iter(source)
    head = b""
    while len(head) < _MAGIC_BYTES and (piece := next(stream, b"")):
        head += piece
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise ConfigError(f"the archive is compressed with {name}: use gzip, or none")
    whole = itertools.chain([head], stream)
    return _inflated(whole, limits) if head.startswith(GZIP) else whole


def _inflated(source: Iterable[bytes], limits: ImageLimits) -> Iterator[bytes]:
    """Yield what gzip members hold; ConfigError for a bomb, a cut or a fault."""
    taken, given = 0, 0
    stream = _Gzip()
    try:
        for piece in source:
            taken += len(piece)
            for out in stream.feed(piece):
                given += len(out)
                if given > max(RATIO_COUNTS_FROM_BYTES, limits.ratio * taken):
                    raise ConfigError(
                        f"the archive unpacks to more than {limits.ratio} times its size"
                    )
                yield out
    except zlib.error as error:
        raise ConfigError(f"the archive's gzip compression is malformed: {error}") from None
    if stream.is_open:
        raise ConfigError("the archive's gzip compression is cut short")


class _Gzip:
    """Members of gzip, one after another; zeros may follow the last."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.is_open = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out of these bytes, at most PIECE_BYTES at once."""
        while self.is_open or data.lstrip(b"\0"):
            self.is_open = True
            out = self._stream.decompress(data, PIECE_BYTES)
            if out:
                yield out
            data = self._stream.unconsumed_tail
            if self._stream.eof:
                data = self._stream.unused_data
                self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)
                self.is_open = False
            elif not data and len(out) < PIECE_BYTES:
                return


def hashed(source: Iterable[bytes], expected: str, what: str) -> Iterator[bytes]:
    """Yield a stream; ConfigError at its end when its SHA-256 is not the one that was told."""
    total = hashlib.sha256()
    for piece in source:
        total.update(piece)
        yield piece
    if total.hexdigest() != expected:
        raise ConfigError(
            f"{what} has the digest sha256:{total.hexdigest()}, but is told to have sha256:{expected}"
        )


def _write(file: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(file, view) :]

"""Content codings of answers, undone as they stream, so that the mask reads what the guest would.

Input is fed, output is read in pieces until there is none: whoever reads stops where nobody takes
it, so a bomb fills nothing. Window, and output for each byte of input, are bounded; what ends too
early, goes on behind its end or is no such coding is a DecodeError.
"""

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

import brotli

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PIECE_BYTES = 65_536
FREE_BYTES = 16 << 20
MAX_RATIO = 1_100  # deflate cannot pass 1,032; honest text stays far below
_ZSTD_WINDOW_LOG = 23  # 8 MiB: all that RFC 9659 lets a sender use
_GZIP = 31


class DecodeError(ValueError):
    """The body is not what its coding says, or more than is decoded here."""


class _Codec(Protocol):
    """One coding: `read` gives some output, nothing when it wants input first."""

    def feed(self, data: bytes) -> None:
        """Take input."""

    def read(self) -> bytes:
        """Return a piece of output."""

    def whole(self) -> bool:
        """Say whether the input so far is complete."""


class _Deflated:
    """gzip, members one after another, and deflate, with the zlib wrapper or as many send it."""

    def __init__(self, wbits: int | None) -> None:
        self._wbits = wbits
        self._input = b""
        self._inner = zlib.decompressobj(wbits) if wbits is not None else None
        self._begun = self._more = False

    def feed(self, data: bytes) -> None:
        self._input += data

    def read(self) -> bytes:
        while self._input or self._more:
            inner = self._opened()
            if inner is None:
                break
            self._begun = True
            piece = inner.decompress(self._input, PIECE_BYTES)
            self._input = inner.unused_data if inner.eof else inner.unconsumed_tail
            self._more = len(piece) == PIECE_BYTES and not inner.eof
            if inner.eof:
                self._ended()
            if piece:
                return piece
        return b""

    def whole(self) -> bool:
        return not (self._begun or self._input)

    def _opened(self) -> "zlib._Decompress | None":
        if self._inner is None and len(self._input) >= 2:
            first, second = self._input[0], self._input[1]
            wrapped = first & 0x0F == 8 and (first << 8 | second) % 31 == 0
            self._inner = zlib.decompressobj(15 if wrapped else -15)
        return self._inner

    def _ended(self) -> None:
        if self._input and self._wbits is None:
            raise DecodeError("more than what was compressed")
        self._begun = False
        self._inner = zlib.decompressobj(_GZIP)


class _Brotli:
    """It does not say whether there is more to come: asked again after each piece, it does."""

    def __init__(self) -> None:
        self._inner = brotli.Decompressor()
        self._input = b""
        self._begun = self._more = False

    def feed(self, data: bytes) -> None:
        self._input += data

    def read(self) -> bytes:
        inner = self._inner
        while self._input or self._more:
            if inner.is_finished():
                break
            self._begun = True
            data = b""
            if inner.can_accept_more_data():
                data, self._input = self._input, b""
            piece = bytes(inner.process(data, output_buffer_limit=PIECE_BYTES))
            self._more = bool(piece)
            if piece:
                return piece
            if not data:
                break
        if self._input and inner.is_finished():
            raise DecodeError("more than what was compressed")
        return b""

    def whole(self) -> bool:
        return not self._input and (not self._begun or bool(self._inner.is_finished()))


class _Zstd:
    """Frames one after another."""

    def __init__(self) -> None:
        self._input = b""
        self._begun = False
        self._renew()

    def _renew(self) -> None:
        self._inner = zstd.ZstdDecompressor(
            options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        )
        self._begun = False

    def feed(self, data: bytes) -> None:
        self._input += data

    def read(self) -> bytes:
        while self._input or not self._inner.needs_input:
            self._begun = True
            data, self._input = self._input, b""
            piece = self._inner.decompress(data, PIECE_BYTES)
            if self._inner.eof:
                self._input = self._inner.unused_data
                self._renew()
            if piece:
                return piece
        return b""

    def whole(self) -> bool:
        return not (self._begun or self._input)


_CODECS: dict[bytes, Callable[[], _Codec]] = {
    b"gzip": lambda: _Deflated(_GZIP),
    b"x-gzip": lambda: _Deflated(_GZIP),
    b"deflate": lambda: _Deflated(None),
    b"br": _Brotli,
    b"zstd": _Zstd,
}
_WINDOWS = {b"br": 16 << 20, b"zstd": 1 << _ZSTD_WINDOW_LOG}
_SMALL_WINDOW = 1 << 16


def decodable(coding: bytes) -> bool:
    """Say whether a content coding, in lower case, is one that is decoded here."""
    return coding in _CODECS


class Decoder:
    """Decodes one body of a coding; `memory` is the most that its state takes, about."""

    def __init__(self, coding: bytes) -> None:
        self._codec = _CODECS[coding]()
        self._taken = self._given = 0
        self.memory = _WINDOWS.get(coding, _SMALL_WINDOW)

    def feed(self, data: bytes) -> None:
        """Take the next piece of what was sent."""
        self._taken += len(data)
        self._codec.feed(data)

    def read(self) -> bytes:
        """Return the next piece of what it means; nothing when there is none without more input."""
        try:
            piece = self._codec.read()
        except (zlib.error, brotli.error, zstd.ZstdError):
            raise DecodeError("not what its coding says") from None
        self._given += len(piece)
        if self._given > FREE_BYTES + MAX_RATIO * self._taken:
            raise DecodeError("far more than was sent")
        return piece

    def finish(self) -> None:
        """Hear that all was fed and read; DecodeError where the end is missing."""
        if not self._codec.whole():
            raise DecodeError("it ends too early")

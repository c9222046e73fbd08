"""Frames of a cell: whatever bytes come, in whatever pieces, they are frames or a FrameError."""

import struct

import atheris
import msgspec
from target import PLANTED, fuzz, must

with atheris.instrument_imports(include=["handiwork.sandboxes.isolate.frames"]):
    from handiwork.sandboxes.isolate.frames import (
        MIXED_BYTES,
        Call,
        Done,
        FrameError,
        Reader,
        Said,
        Turn,
    )

MOST = 1 << 16


def said(pieces: list[bytes]) -> tuple[list[tuple[Said, int]], bool, int]:
    """Return the frames, whether they ended in an error, and what waits."""
    reader, found = Reader(MOST), []
    try:
        for piece in pieces:
            found += reader.feed(piece)
            must(reader.bytes_waiting <= MOST + 4 + len(piece), "more is kept than a frame has")
    except FrameError:
        return found, True, 0
    return found, False, reader.bytes_waiting


def plain(told: tuple[list[tuple[Said, int]], bool, int]) -> object:
    """Return it as what compares by what it says."""
    frames = [
        (size, one.logs, [(call.id, call.name, bytes(call.argument)) for call in one.calls])
        if isinstance(one, Turn)
        else (size, one.ok, bytes(one.value), one.error)
        for one, size in told[0]
    ]
    return frames, *told[1:]


def check(one: Said, size: int) -> None:
    must(0 < size <= MOST, "a frame of no size, or of one that is too large")
    must(type(one) in (Turn, Done), "a frame of another kind")
    if isinstance(one, Turn):
        for call in one.calls:
            must(type(call) is Call and type(call.id) is int, "a call without a number")
            bytes(call.argument).decode()
        for level, text in one.logs:
            must(type(level) is str and type(text) is str, "a line that is no text")
            f"{level}{text}".encode()
        must(len(one.calls) < 2 or size <= MIXED_BYTES, "a long frame of several calls")
    else:
        must(type(one.ok) is bool, "an end that is neither good nor bad")
        msgspec.json.decode(one.value)  # whoever asked for it can read it
        if PLANTED == "frames" and one.error is not None:
            raise AssertionError("planted")


def test(data: bytes) -> None:
    """The first byte says into what pieces the rest is cut; as raw bytes, and as one frame."""
    cut, rest = 1 + (data[0] if data else 0), data[1:]
    for stream in (rest, struct.pack("<I", len(rest)) + rest):
        pieces = [stream[at : at + cut] for at in range(0, len(stream), cut)]
        whole, cut_up = said([stream]), said(pieces)
        must(plain(whole) == plain(cut_up), "pieces give other frames than the whole")
        for one, size in whole[0]:
            check(one, size)


if __name__ == "__main__":
    fuzz(test)

"""What a cell and we say to each other: four bytes of length, least first, and JSON. Pure.

Every byte of a cell is a guest's. A frame is bounded before it is read and checked before it is used,
and what a guest may fill at will, arguments and results, stays text until somebody who knows its
shape reads it: a few bytes of JSON can be many of Python. `cell/PROTOCOL.md` is the description.
"""

import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

FRAME_BYTES = 32 << 20
"""More is no frame: `frames.h` has the same number."""
MIXED_BYTES = 1 << 20
"""A longer frame is one call or the end, so that none makes many objects of ours."""
_LENGTH = struct.Struct("<I")
_HALF = re.compile(rb"(?<!\\)(?:\\\\)*\\u[dD][89a-fA-F]")
"""An escape of half a character. Our cells write none; a half alone is no text for whoever reads it."""
_LARGE = re.compile(
    rb'"(?:[^"\\]++|\\.)*+"|(-?[0-9][0-9.eE+-]{300,}|-?[0-9][0-9.]*+[eE]\+?[0-9]{3,})'
)
"""Texts, which are passed over, and numbers that may be larger than any."""
_MOST_DIGITS = 4_300
"""Of an integer that Python reads."""


class FrameError(ValueError):
    """Bytes that are no frame of a cell."""


class Call(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"name": "n", "argument": "a"}
):
    """What a cell asks of us: a name with dots, and one JSON value as it was sent."""

    id: int
    name: str
    argument: msgspec.Raw


class Turn(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="t",
    tag="turn",
    rename={"logs": "l", "calls": "c"},
):
    """What it logged and asked since its last frame."""

    logs: tuple[tuple[str, str], ...] = ()
    calls: tuple[Call, ...] = ()


class Thrown(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An error as its code threw it."""

    name: str
    message: str
    stack: str = ""


class Done(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="t",
    tag="done",
    rename={"value": "v", "error": "e"},
):
    """The end of a run. `value` is JSON as it was sent."""

    ok: bool
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: Thrown | None = None


class _OneCall(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="t",
    tag="turn",
    rename={"calls": "c"},
):
    """A turn that is longer than others may be."""

    calls: tuple[Call]


Said = Turn | Done
_DECODER: msgspec.json.Decoder[Said] = msgspec.json.Decoder(Said)
_LONG: msgspec.json.Decoder[_OneCall | Done] = msgspec.json.Decoder(_OneCall | Done)


class Reader:
    """Bytes in, frames out; `bytes_waiting` are of a frame that is not whole yet."""

    def __init__(self, most_bytes: int = FRAME_BYTES) -> None:
        self._most = most_bytes
        self._waiting = bytearray()

    @property
    def bytes_waiting(self) -> int:
        """How much is kept."""
        return len(self._waiting)

    def feed(self, data: bytes) -> Iterator[tuple[Said, int]]:
        """Yield the frames that are whole now, each with its size; FrameError for what is none."""
        self._waiting += data
        while len(self._waiting) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._waiting)
            if length > self._most:
                raise FrameError(f"a frame of {length} bytes, where {self._most} are the most")
            end = _LENGTH.size + length
            if len(self._waiting) < end:
                return
            text = bytes(memoryview(self._waiting)[_LENGTH.size : end])
            del self._waiting[:end]
            yield _checked(_decoded(text)), length


def _decoded(text: bytes) -> Said:
    try:
        text.decode()  # also what stays text until somebody reads it is UTF-8 from here on
        if len(text) <= MIXED_BYTES:
            return _DECODER.decode(text)
        said = _LONG.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FrameError(f"no frame: {error}") from None
    return Turn(calls=said.calls) if isinstance(said, _OneCall) else said


def _checked(said: Said) -> Said:
    if isinstance(said, Done):
        if _HALF.search(said.value):
            raise FrameError("a value with an escape of half a character")
        if any(found[1] and _is_too_large(found[1]) for found in _LARGE.finditer(said.value)):
            raise FrameError("a value with a number larger than any")
    return said


def _is_too_large(number: bytes) -> bool:
    if number.removeprefix(b"-").isdigit():
        return len(number) > _MOST_DIGITS
    try:
        return math.isinf(float(number))
    except ValueError:  # it is no number either
        return True


def run(code: str, name: str, env: Mapping[str, str]) -> bytes:
    """Return the frame that begins a run."""
    return _frame({"t": "run", "code": code, "name": name, "env": dict(env)})


def settled(answers: Sequence["Answer"]) -> bytes:
    """Return the frame that answers calls."""
    return _frame({"t": "settled", "s": answers})


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, rename={"value": "v", "error": "e"}):
    """What became of a call."""

    id: int
    ok: bool
    value: Any = None
    error: Thrown | None = None


def _frame(message: object) -> bytes:
    try:
        text = msgspec.json.encode(message)
    except UnicodeEncodeError:
        raise FrameError("half a character, which is no text for a cell") from None
    if len(text) > FRAME_BYTES:
        raise FrameError(f"{len(text)} bytes are too many for a cell, {FRAME_BYTES} are the most")
    return _LENGTH.pack(len(text)) + text

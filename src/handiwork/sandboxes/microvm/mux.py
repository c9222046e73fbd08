"""The codec of the exit bridge, the twin of `guest/mux.c` (`guest/PROTOCOL.md`, section 4). Pure."""

import enum
import struct
from collections.abc import Iterator

import msgspec

PAYLOAD_BYTES = 32_760
WINDOW_BYTES = 65_536
MAX_FLOWS = 1536
_HEAD = struct.Struct("<IHBB")
_CREDIT = struct.Struct("<I")


class Kind(enum.IntEnum):
    """What a frame says of a flow; the last two are of no flow."""

    OPEN = 1
    DATA = 2
    END = 3
    RESET = 4
    CREDIT = 5
    HUSH = 6
    WAKE = 7


class MuxError(Exception):
    """The bytes are no frame."""


class MuxFrame(msgspec.Struct, frozen=True):
    """One frame; `credit` is of CREDIT, `data` of DATA."""

    flow: int
    kind: Kind
    data: bytes = b""
    credit: int = 0


def encode(frame: MuxFrame) -> bytes:
    """Return the bytes of a frame."""
    data = _CREDIT.pack(frame.credit) if frame.kind is Kind.CREDIT else frame.data
    return _HEAD.pack(frame.flow, len(data), frame.kind, 0) + data


class Decoder:
    """Takes bytes as they come and gives whole frames; it keeps at most one frame's bytes."""

    def __init__(self) -> None:
        self._unread = bytearray()

    @property
    def unread(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._unread)

    def feed(self, data: bytes) -> Iterator[MuxFrame]:
        """Yield the frames that are whole now; MuxError at the first that is none."""
        self._unread += data
        at = 0
        try:
            while len(self._unread) - at >= _HEAD.size:
                flow, length, number, zero = _HEAD.unpack_from(self._unread, at)
                _check(flow, length, number, zero)
                end = at + _HEAD.size + length
                if len(self._unread) < end:
                    return
                yield _frame(flow, Kind(number), bytes(self._unread[at + _HEAD.size : end]))
                at = end
        finally:
            del self._unread[:at]


def _check(flow: int, length: int, number: int, zero: int) -> None:
    alone = number in (Kind.HUSH, Kind.WAKE)
    if zero or not Kind.OPEN <= number <= Kind.WAKE or alone == bool(flow):
        raise MuxError(f"kind {number} of flow {flow}")
    if number == Kind.DATA:
        fits = 1 <= length <= PAYLOAD_BYTES
    else:
        fits = length == (_CREDIT.size if number == Kind.CREDIT else 0)
    if not fits:
        raise MuxError(f"{length} bytes in a frame of kind {number}")


def _frame(flow: int, kind: Kind, data: bytes) -> MuxFrame:
    if kind is not Kind.CREDIT:
        return MuxFrame(flow, kind, data)
    (credit,) = _CREDIT.unpack(data)
    if not 1 <= credit <= WINDOW_BYTES:
        raise MuxError(f"credit of {credit} bytes")
    return MuxFrame(flow, kind, credit=credit)

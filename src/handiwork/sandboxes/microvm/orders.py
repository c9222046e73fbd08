"""Orders to pid 1 of a machine and its answers (`guest/PROTOCOL.md`, section 5). Pure."""

import struct
from collections.abc import Mapping, Sequence

import msgspec

START, RESUME, HOLD, CLAIM = 1, 2, 3, 4
READY, ENDED, BUSY = 64, 65, 66
HEAD_BYTES = 5
ENTROPY_BYTES = 64
ORDER_BYTES = 4 << 20
ANSWER_BYTES = 4096
_HEAD = struct.Struct("<IB")


class OrderError(Exception):
    """What came is no answer."""


class Moment(msgspec.Struct, frozen=True):
    """What a machine is told before anything of its sandbox runs: the time, and randomness."""

    unix_ns: int
    entropy: bytes


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first order: owner of the disk's files, files by path (b"": a directory), `launch` options."""

    owner: int
    files: Mapping[str, bytes]
    arguments: Sequence[str]


def start(moment: Moment, order: Start) -> bytes:
    """Return the encoded order."""
    parts = [_moment(moment), struct.pack("<II", order.owner, len(order.files))]
    for path, content in order.files.items():
        parts += [_bytes(path.encode()), _bytes(content)]
    parts.append(struct.pack("<I", len(order.arguments)))
    parts += [_bytes(argument.encode()) for argument in order.arguments]
    return _order(START, b"".join(parts))


def resume(moment: Moment) -> bytes:
    """Return the encoded order that ends a hold, also one of an earlier life of the machine."""
    return _order(RESUME, _moment(moment))


def claim(moment: Moment, hostname: str, ca_certificate: str) -> bytes:
    """Return the encoded order that makes one that waits somebody's."""
    more = [_bytes(text.encode()) for text in (hostname, ca_certificate)]
    return _order(CLAIM, b"".join((_moment(moment), *more)))


def hold() -> bytes:
    """Return the encoded order to stop the sandbox and write everything to the disk."""
    return _order(HOLD, b"")


def answer_head(head: bytes) -> tuple[int, int]:
    """Return (kind, length of the text that follows); OrderError when it is none."""
    length, kind = _HEAD.unpack(head)
    if kind not in (READY, ENDED, BUSY) or length > (ANSWER_BYTES if kind == ENDED else 0):
        raise OrderError(f"answer {kind} of {length} bytes")
    return kind, length


def _moment(moment: Moment) -> bytes:
    return struct.pack("<Q", moment.unix_ns) + _bytes(moment.entropy)


def _bytes(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _order(kind: int, payload: bytes) -> bytes:
    if len(payload) > ORDER_BYTES:
        raise OrderError(f"an order of {len(payload)} bytes; at most {ORDER_BYTES}")
    return _HEAD.pack(len(payload), kind) + payload

"""Orders to pid 1 of a machine and its answers (`guest/PROTOCOL.md`, section 5). Pure."""

import struct
from collections.abc import Mapping, Sequence

import msgspec

START, RESUME, SYNC = 1, 2, 3
READY, ENDED = 64, 65
HEAD_BYTES = 5
ENTROPY_BYTES = 64
ORDER_BYTES = 4 << 20
ANSWER_BYTES = 4096
_HEAD = struct.Struct("<IB")


class OrderError(Exception):
    """What came is no answer."""


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """The first order: the moment, randomness, files by path ("": a directory), `launch` options."""

    unix_ns: int
    entropy: bytes
    owner: int
    files: Mapping[str, bytes]
    arguments: Sequence[str]


def start(order: Start) -> bytes:
    """Return the encoded order."""
    parts = [_moment(order.unix_ns, order.entropy), struct.pack("<I", order.owner)]
    parts.append(struct.pack("<I", len(order.files)))
    for path, content in order.files.items():
        parts += [_bytes(path.encode()), _bytes(content)]
    parts.append(struct.pack("<I", len(order.arguments)))
    parts += [_bytes(argument.encode()) for argument in order.arguments]
    return _order(START, b"".join(parts))


def resume(unix_ns: int, entropy: bytes) -> bytes:
    """Return the encoded order that comes first after a wake."""
    return _order(RESUME, _moment(unix_ns, entropy))


def sync() -> bytes:
    """Return the encoded order to write everything to the disk."""
    return _order(SYNC, b"")


def answer_head(head: bytes) -> tuple[int, int]:
    """Return (kind, length of the text that follows); OrderError when it is none."""
    length, kind = _HEAD.unpack(head)
    if kind not in (READY, ENDED) or length > (ANSWER_BYTES if kind == ENDED else 0):
        raise OrderError(f"answer {kind} of {length} bytes")
    return kind, length


def _moment(unix_ns: int, entropy: bytes) -> bytes:
    return struct.pack("<Q", unix_ns) + _bytes(entropy)


def _bytes(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _order(kind: int, payload: bytes) -> bytes:
    if len(payload) > ORDER_BYTES:
        raise OrderError(f"an order of {len(payload)} bytes; at most {ORDER_BYTES}")
    return _HEAD.pack(len(payload), kind) + payload

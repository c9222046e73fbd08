"""What the proxy and the hooks' process say to each other. Pure.

A unix stream socket. Each frame is a u32 length (little-endian), then that many bytes of
MessagePack. The hooks' process speaks first, with a Catalog, and again whenever it changes; each
Call gets one result of its id. Whoever cannot read a frame closes the connection.
"""

import struct
from collections.abc import Iterator

import msgspec

from handiwork.model.hook import HookInfo, Stage
from handiwork.model.redacted import shown_as_repr

MAX_FRAME_BYTES = 12 << 20
MAX_CALLS = 64
"""Of one connection, at once."""
MAX_HEADERS = 200
MAX_HEAD_CHARS = 65_536
MAX_REASON_CHARS = 500
_LENGTH = struct.Struct("<I")

Pairs = list[tuple[str, str]]


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Whose request it is."""

    tenant: str
    agent_id: str
    session_id: str
    sandbox_id: str
    tool: str
    tool_use_id: str


class RequestForm(msgspec.Struct, frozen=True, kw_only=True):
    """A request on the wire; header values are latin-1."""

    method: str
    scheme: str
    host: str
    port: int
    path: str
    query: str
    headers: Pairs
    body: bytes | None


class ResponseForm(msgspec.Struct, frozen=True, kw_only=True):
    """An answer on the wire."""

    status: int
    headers: Pairs
    body: bytes | None


class Call(msgspec.Struct, frozen=True, kw_only=True, tag="call"):
    """Run one stage of one hook. `response` is there in the second stage."""

    id: int
    hook: str
    stage: Stage
    caller: Caller
    request: RequestForm
    response: ResponseForm | None = None
    secrets: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Call({self.id}, {self.hook}, {self.stage})"

    __rich_repr__ = shown_as_repr


class Catalog(msgspec.Struct, frozen=True, kw_only=True, tag="catalog"):
    """Every hook there is."""

    hooks: tuple[HookInfo, ...]


class Passed(msgspec.Struct, frozen=True, kw_only=True, tag="passed"):
    """Go on with the request as the hook left it."""

    id: int
    request: RequestForm


class Shown(msgspec.Struct, frozen=True, kw_only=True, tag="shown"):
    """Go on with the answer as the hook left it."""

    id: int
    response: ResponseForm


class Answered(msgspec.Struct, frozen=True, kw_only=True, tag="answered"):
    """Answer with this."""

    id: int
    response: ResponseForm


class Denied(msgspec.Struct, frozen=True, kw_only=True, tag="denied"):
    """Refuse."""

    id: int
    reason: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The hook did not do its work; refuse."""

    id: int
    reason: str


Result = Passed | Shown | Answered | Denied | Failed
FromHooks = Catalog | Result

encode = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(Call).decode
decode_from_hooks = msgspec.msgpack.Decoder(FromHooks).decode


def frame(message: Call | FromHooks) -> bytes:
    """Return a message as it is sent; ValueError where it is too large, TypeError where it is none."""
    payload = encode(message)
    if len(payload) > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {len(payload)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return _LENGTH.pack(len(payload)) + payload


class Frames:
    """Cuts what comes into payloads."""

    def __init__(self) -> None:
        self._data = bytearray()

    def take(self, data: bytes) -> Iterator[bytes]:
        """Yield each payload that is whole now; ValueError when one is announced too large."""
        self._data += data
        while len(self._data) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._data)
            if length > MAX_FRAME_BYTES:
                raise ValueError("a frame is over the limit")
            end = _LENGTH.size + length
            if len(self._data) < end:
                return
            payload = bytes(self._data[_LENGTH.size : end])
            del self._data[:end]
            yield payload


def checked_head(headers: Pairs) -> str:
    """Return what is wrong with the fields of a head, or nothing."""
    if len(headers) > MAX_HEADERS:
        return f"more than {MAX_HEADERS} headers"
    if sum(len(name) + len(value) for name, value in headers) > MAX_HEAD_CHARS:
        return f"headers of more than {MAX_HEAD_CHARS} characters"
    if any(ord(char) > 0xFF for name, value in headers for char in name + value):
        return "a header that is not latin-1"
    return ""

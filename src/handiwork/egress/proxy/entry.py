"""The first bytes of a connection: what came, from which captured flow, in TLS or in clear."""

import asyncio
import ipaddress
import socket
import struct
from typing import Literal

import msgspec

MAGIC = b"HWX1"
PREAMBLE = struct.Struct("!4sBBH16s")
GO_ON = b"\x00"
REFUSED = b"\x01"
TLS_HANDSHAKE = 0x16


class Preamble(msgspec.Struct, frozen=True):
    """What the guest's agent says of a captured flow: its kind, and where the guest dialled."""

    kind: Literal["tcp", "dns"]
    address: str
    port: int


class BadPreambleError(ValueError):
    """The bytes begin like a captured flow and are none."""


def parse_preamble(data: bytes) -> Preamble:
    """Return what 24 bytes say, or raise BadPreambleError."""
    magic, kind, family, port, raw = PREAMBLE.unpack(data)
    if magic != MAGIC or kind not in (1, 2) or family not in (4, 6):
        raise BadPreambleError("not the preamble of a captured flow")
    if family == 4 and any(raw[4:]):
        raise BadPreambleError("bytes after an IPv4 address")
    address = ipaddress.ip_address(raw[:4] if family == 4 else raw)
    return Preamble("tcp" if kind == 1 else "dns", str(address), port)


async def read_preamble(sock: socket.socket, seconds: float) -> Preamble | bytes:
    """Return the preamble, or the first bytes where a request in clear begins instead.

    Reads nothing beyond the 24 bytes. Raises BadPreambleError, TimeoutError, or EOFError when the
    other side ends before it said what it is.
    """
    loop = asyncio.get_running_loop()
    data = b""
    async with asyncio.timeout(seconds):
        while len(data) < PREAMBLE.size:
            more = await loop.sock_recv(sock, PREAMBLE.size - len(data))
            if not more:
                raise EOFError
            data += more
            if not data.startswith(MAGIC[: len(data)]):
                return data
    return parse_preamble(data)


async def first_byte(sock: socket.socket, seconds: float) -> int | None:
    """Return the first byte that waits, and leave it there; None at the end or after the time."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    data = sock.recv(1, socket.MSG_PEEK)
                    return data[0] if data else None
                except BlockingIOError:
                    pass
                waiting = loop.create_future()
                loop.add_reader(sock, _wake, waiting)
                try:
                    await waiting
                finally:
                    loop.remove_reader(sock)
    except (TimeoutError, ConnectionError):
        return None


def _wake(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)

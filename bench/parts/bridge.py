"""A unix socket that stands where our exit stands, and carries each flow to one TCP port.

`python bridge.py SOCKET PORT` prints a line when it listens and serves until standard input ends.
The flow's preamble is that of `guest/PROTOCOL.md`: 24 bytes, answered by one; questions of DNS are
refused, so names must stand in the sandbox's own hosts file.
"""

import asyncio
import contextlib
import socket
import sys
from pathlib import Path

import uvloop

PREAMBLE_BYTES = 24
KIND = 4
TCP = 1


class Half(asyncio.Protocol):
    """One end of a flow, which writes to the other what it reads, as fast as that takes it."""

    def __init__(self) -> None:
        self.other: asyncio.Transport | None = None
        self.transport: asyncio.Transport | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def join(self, other: asyncio.Transport) -> None:
        self.other = other
        if self._early:
            other.write(self._early)
            self._early = b""

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self._early += data
        else:
            self.other.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        if self.other is not None:
            self.other.close()


class Incoming(Half):
    """The sandbox's end: a preamble, then bytes."""

    def __init__(self, port: int, group: asyncio.TaskGroup) -> None:
        super().__init__()
        self._port = port
        self._group = group
        self._head = b""

    def data_received(self, data: bytes) -> None:
        if len(self._head) == PREAMBLE_BYTES:
            super().data_received(data)
            return
        self._head += data
        self._head, rest = self._head[:PREAMBLE_BYTES], self._head[PREAMBLE_BYTES:]
        if len(self._head) == PREAMBLE_BYTES:
            self._group.create_task(self._go_on())
            if rest:
                super().data_received(rest)

    async def _go_on(self) -> None:
        if self._head[KIND] != TCP:
            self.transport.write(b"\x01")
            self.transport.close()
            return
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            transport, upstream = await loop.create_connection(Half, "127.0.0.1", self._port)
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            upstream.join(self.transport)
            self.transport.write(b"\x00")
            self.join(transport)
            return
        self.transport.close()


async def serve(path: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        server = await loop.create_unix_server(lambda: Incoming(port, group), path)
        Path(path).chmod(0o666)
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        server.close()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1], int(sys.argv[2])))

"""Checks of connections of ours to who listens inside: whole, half-closed, refused, broken."""

import asyncio
import errno
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from handiwork.model.errors import GuestError
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.protocol import Connection, Sandbox
from handiwork.sandboxes.selfcheck.table import Bench, Refuted, check, expect, refused

PATIENCE_SECONDS = 30.0

_LISTEN = (
    "import socket, struct, sys\n"
    "family = socket.AF_INET6 if sys.argv[1] == '::1' else socket.AF_INET\n"
    "s = socket.socket(family); s.bind((sys.argv[1], 0)); s.listen()\n"
    "print(s.getsockname()[1], flush=True)\n"
    "c = s.accept()[0]\n"
)
_ECHO = "got = b''\nwhile data := c.recv(65536): got += data\nc.sendall(got); c.close()\n"
_RESET = (
    "c.recv(1); c.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))\n"
    "c.close()\n"
)


@check("shell")
async def _a_port_inside_is_reached(bench: Bench) -> None:
    data = bytes(range(256)) * 4096
    for address in ("127.0.0.1", "::1"):
        async with serving(bench, _ECHO, address) as (box, port):
            connection = await box.connect(port)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await connection.write(data)
                await connection.finish()
                expect(await _rest(connection) == data, True, "the echo of a mebibyte")


@check("shell")
async def _a_connection_that_breaks_is_told(bench: Bench) -> None:
    async with serving(bench, _RESET, "127.0.0.1") as (box, port):
        connection = await box.connect(port)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await connection.write(b"x")
            await refused(_rest(connection), errno.ECONNRESET, errno.EPIPE)


@check("shell")
async def _a_port_where_nobody_listens_is_refused(bench: Bench) -> None:
    box = await bench.box()
    await refused(box.connect(9), errno.ECONNREFUSED)
    for none in (0, 65_536, -1):
        await refused(box.connect(none), errno.EINVAL)


@check("shell")
async def _no_connection_leads_to_the_exit(bench: Bench) -> None:
    box = await bench.box()
    for port in (53, 15001, 15053):
        await refused(box.connect(port), errno.EACCES)


async def _rest(connection: Connection) -> bytes:
    parts = []
    while data := await connection.read():
        parts.append(data)
    return b"".join(parts)


@asynccontextmanager
async def serving(bench: Bench, script: str, address: str) -> AsyncIterator[tuple[Sandbox, int]]:
    """Yield the sandbox and the port where a program listens; a script has the connection as `c`."""
    box = await bench.box()
    request = ExecRequest(
        argv=("python3", "-c", _LISTEN + script, address), cwd="/", timeout_seconds=60
    )
    process = await box.start(request)
    try:
        said = b""
        async for _, data in process.output():
            said += data
            if said.endswith(b"\n"):
                break
        if not said.strip().isdigit():
            raise Refuted(f"no server could be started inside: {said[-200:]!r}")
        yield box, int(said)
    finally:
        await process.signal(9)
        with suppress(GuestError):
            await process.wait()

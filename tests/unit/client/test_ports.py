"""A forwarded port: bytes, ends, errors, bounds. What is inside is played by a server of ours."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from handiwork.client import ports
from handiwork.client.ports import Connection, forwarding
from handiwork.model.errors import ConfigError, GuestError, HandiworkError, SandboxUnavailableError


async def upper(socket: ServerConnection) -> None:
    """What the control plane says for a server inside that echoes in capitals, then ends."""
    await socket.send('{"connected": true}')
    async for message in socket:
        if isinstance(message, str):
            assert json.loads(message) == {"finish": True}
            break
        await socket.send(message.upper())
    await socket.send(b"BYE")
    await socket.send('{"finished": true}')


async def refusing(socket: ServerConnection) -> None:
    await socket.send('{"error": {"type": "guest", "message": "nobody", "errno": 111}}')


async def cut(socket: ServerConnection) -> None:
    await socket.send('{"connected": true}')


@asynccontextmanager
async def plane(behaviour=upper) -> AsyncIterator[ports.Connect]:
    async with serve(behaviour, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]

        @asynccontextmanager
        async def opened():
            async with connect(f"ws://127.0.0.1:{port}", proxy=None) as socket:
                connection = Connection(socket)
                await connection.open()
                yield connection

        yield opened


async def test_bytes_and_ends_go_through():
    errors: list[HandiworkError] = []
    async with plane() as inside, forwarding(inside, 0, errors.append) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = b"x" * 300_000
        writer.write(data)
        writer.write_eof()
        assert await reader.read() == data.upper() + b"BYE"
        writer.close()
    assert errors == []


async def test_many_at_once(monkeypatch):
    monkeypatch.setattr(ports, "FORWARDED_CONNECTIONS", 2)

    async def one(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"a")
        writer.write_eof()
        try:
            return await reader.read()
        finally:
            writer.close()

    async with plane() as inside, forwarding(inside, 0, lambda _: None) as port:
        assert await asyncio.gather(*(one(port) for _ in range(9))) == [b"ABYE"] * 9


@pytest.mark.parametrize(
    ("behaviour", "error"), [(refusing, GuestError), (cut, SandboxUnavailableError)]
)
async def test_what_fails_is_told_and_the_caller_is_reset(behaviour, error):
    errors: list[HandiworkError] = []
    async with plane(behaviour) as inside, forwarding(inside, 0, errors.append) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
    assert [type(one) for one in errors] == [error]


async def test_leaving_ends_what_is_open():
    async with plane() as inside:
        async with forwarding(inside, 0, lambda _: None) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"a")
            assert await reader.read(1) == b"A"
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        writer.close()


async def test_a_port_that_is_taken_is_told():
    async with plane() as inside, forwarding(inside, 0, lambda _: None) as port:
        with pytest.raises(ConfigError, match=str(port)):
            async with forwarding(inside, port, lambda _: None):
                pass

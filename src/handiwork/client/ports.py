"""Connections to ports inside a sandbox, and ports of this machine that lead there."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import msgspec
from websockets.asyncio.client import ClientConnection

from handiwork.model.errors import ConfigError, HandiworkError, SandboxUnavailableError, sole
from handiwork.model.wire import PortFrame, PortOrder, error_of

PIECE_BYTES = 64 * 1024
FORWARDED_CONNECTIONS = 48
"""Of one forwarded port at once; one more waits."""
WAITING_CONNECTIONS = 256
"""Beside those; one more is reset."""


class Connection:
    """A connection to who listens inside: `read`, `write`, `finish` of our side."""

    def __init__(self, over: ClientConnection) -> None:
        self._socket = over

    async def open(self) -> None:
        """Wait until it stands; GuestError says why it does not."""
        if (await self._frame()).connected:
            return
        raise SandboxUnavailableError("the control plane did not say that the connection stands")

    async def read(self) -> bytes:
        """Return the next bytes, empty at the end of their side; GuestError when it broke."""
        async for message in self._socket:
            if isinstance(message, bytes):
                return message
            if self._told(message).finished:
                return b""
        raise SandboxUnavailableError("the connection to the sandbox was cut off")

    async def write(self, data: bytes) -> None:
        """Send; waits while they do not read."""
        rest = memoryview(data)
        for at in range(0, len(rest), PIECE_BYTES):
            await self._socket.send(bytes(rest[at : at + PIECE_BYTES]))

    async def finish(self) -> None:
        """End our side; they may still send."""
        await self._socket.send(msgspec.json.encode(PortOrder(finish=True)).decode())

    async def _frame(self) -> PortFrame:
        async for message in self._socket:
            return self._told(message)
        raise SandboxUnavailableError("the connection to the sandbox was cut off")

    def _told(self, message: bytes | str) -> PortFrame:
        frame = msgspec.json.decode(message, type=PortFrame)
        if frame.error is not None:
            raise error_of(frame.error)
        return frame


Connect = Callable[[], AbstractAsyncContextManager[Connection]]


@asynccontextmanager
async def forwarding(
    connect: Connect, listen: int, on_error: Callable[[HandiworkError], None]
) -> AsyncGenerator[int, None]:
    """Listen on 127.0.0.1 and lead each connection inside; yields the port, `listen` 0 takes a free one.

    A connection that cannot be made is reset, and `on_error` is told why.
    """
    places = asyncio.Semaphore(FORWARDED_CONNECTIONS)
    tasks: set[asyncio.Task[None]] = set()

    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(tasks) >= FORWARDED_CONNECTIONS + WAITING_CONNECTIONS:
            writer.transport.abort()
            return
        task = group.create_task(one(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with places:
            try:
                async with connect() as connection:
                    await _lead(reader, writer, connection)
            except HandiworkError as error:
                on_error(error)
            except OSError:
                pass  # who called us left; the connection inside is reset with it
            finally:
                writer.transport.abort()

    listening = _listening(listen)
    try:
        async with asyncio.TaskGroup() as group:
            server = await asyncio.start_server(accepted, sock=listening)
            try:
                yield listening.getsockname()[1]
            finally:
                server.close()
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as raised:
        raise sole(raised) from None


def _listening(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise ConfigError(f"port {port} of 127.0.0.1: {error.strerror}") from None


async def _lead(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection
) -> None:
    async def inward() -> None:
        while data := await reader.read(PIECE_BYTES):
            await connection.write(data)
        await connection.finish()

    async def outward() -> None:
        while data := await connection.read():
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError, RuntimeError):  # they have closed all of it
            writer.write_eof()

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(inward())
            group.create_task(outward())
    except BaseExceptionGroup as raised:
        raise raised.exceptions[0] from None
    writer.close()
    await writer.wait_closed()

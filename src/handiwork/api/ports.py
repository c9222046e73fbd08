"""`/api/sandboxes/{id}/ports/{port}`: a connection to who listens there inside, over a WebSocket.

Bytes are bytes, both ways; a text says that the connection stands, that a side has ended, or why it
is no more. The connection is reset when its caller leaves.
"""

import asyncio
import errno

from litestar import Router, websocket
from litestar.params import FromPath

from handiwork.api.control import Injected
from handiwork.api.sockets import AnySocket, LiveSocket, decoded, serve
from handiwork.model.errors import ConfigError, GuestError
from handiwork.model.wire import PortFrame, PortOrder
from handiwork.sandboxes.protocol import Connection

UNREAD_SECONDS = 300.0
"""How long a program may leave what came unread, past 256 KiB, before its connection is reset."""


@websocket("/{sandbox_id:str}/ports/{port:int}")
async def open_port(
    control: Injected, socket: AnySocket, sandbox_id: FromPath[str], port: FromPath[int]
) -> None:
    """Connect to a port of loopback inside a sandbox."""

    async def body(live: LiveSocket) -> None:
        sandbox = await control.sandboxes.use(sandbox_id)
        connection = await sandbox.connect(port)
        try:
            await live.tell(PortFrame(connected=True))
            async with asyncio.TaskGroup() as group:
                group.create_task(_outward(connection, live))
                group.create_task(_inward(connection, live))
        except BaseExceptionGroup as raised:
            raise raised.exceptions[0] from None  # the first; the other side may fail by it
        finally:
            connection.close()

    await serve(socket, body)


async def _outward(connection: Connection, live: LiveSocket) -> None:
    while data := await connection.read():
        await live.send(data)
    await live.tell(PortFrame(finished=True))


async def _inward(connection: Connection, live: LiveSocket) -> None:
    while True:
        message = await live.receive()
        if isinstance(message, str):
            if not decoded(message, PortOrder).finish:
                raise ConfigError("a text must say that this side is finished")
            await connection.finish()
            return
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                await connection.write(message)
        except TimeoutError:
            raise GuestError(
                f"the port took no bytes for {UNREAD_SECONDS:g} s", errno=errno.EAGAIN
            ) from None


routes = Router("/api/sandboxes", route_handlers=[open_port])

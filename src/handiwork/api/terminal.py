"""`/api/sandboxes/{id}/terminal`: a command on a terminal, over a WebSocket.

The first message says what to run. After it bytes are what is typed and shown; a text is an order
of the caller's, or how it ended. The command ends with the connection.
"""

import asyncio
import errno

from litestar import Router, websocket
from litestar.params import FromPath

from handiwork.api.control import Injected
from handiwork.api.exec import check_texts
from handiwork.api.sandboxes import check_entries
from handiwork.api.sockets import AnySocket, LiveSocket, decoded, serve
from handiwork.api.streams import first
from handiwork.model.errors import ConfigError, GuestError
from handiwork.model.sandbox import ExecRequest, TerminalSize
from handiwork.model.wire import ExecFrame, TerminalBody, TerminalOrder
from handiwork.sandboxes.protocol import Terminal

FIRST_SECONDS = 30.0
"""How long the caller may take to say what to run."""
INPUT_SECONDS = 300.0
"""How long a program may leave what was typed unread, past 256 KiB, before it is ended."""


@websocket("/{sandbox_id:str}/terminal")
async def open_terminal(control: Injected, socket: AnySocket, sandbox_id: FromPath[str]) -> None:
    """Run a command on a terminal of its own."""

    async def body(live: LiveSocket) -> None:
        request, size = await _asked(live)
        sandbox = await control.sandboxes.use(sandbox_id)
        terminal = await sandbox.terminal(request, size)
        ended = False
        try:
            await first(_show(terminal, live), _obey(terminal, live))
            result = await terminal.wait()
            ended = True
        finally:
            if not ended:
                terminal.close()
        await live.tell(ExecFrame(result=result))

    await serve(socket, body)


async def _asked(live: LiveSocket) -> tuple[ExecRequest, TerminalSize]:
    try:
        async with asyncio.timeout(FIRST_SECONDS):
            asked = decoded(await live.receive(), TerminalBody)
    except TimeoutError:
        raise ConfigError("the first message, which says what to run, did not come") from None
    check_texts(asked.argv, asked.cwd, asked.user)
    check_entries("env", asked.env)
    request = ExecRequest(
        argv=asked.argv,
        cwd=asked.cwd,
        env=asked.env,
        user=asked.user,
        timeout_seconds=None,
        output_limit_bytes=0,
    )
    return request, asked.size


async def _show(terminal: Terminal, live: LiveSocket) -> None:
    async for _, data in terminal.output():
        await live.send(data)


async def _obey(terminal: Terminal, live: LiveSocket) -> None:
    while True:
        message = await live.receive()
        if isinstance(message, bytes):
            await _type(terminal, message)
            continue
        order = decoded(message, TerminalOrder)
        if order.resize is not None:
            await terminal.resize(order.resize)
        if order.signal is not None:
            await terminal.signal(order.signal)


async def _type(terminal: Terminal, data: bytes) -> None:
    try:
        async with asyncio.timeout(INPUT_SECONDS):
            await terminal.write(data)
    except TimeoutError:
        raise GuestError(
            f"the terminal took no input for {INPUT_SECONDS:g} s", errno=errno.EAGAIN
        ) from None
    except GuestError:
        return  # it has ended; its result is on the way


routes = Router("/api/sandboxes", route_handlers=[open_terminal])

"""`/api/sandboxes/{id}/exec`: run a command, to its end or as a stream of NDJSON frames.

A command lives as long as its call: when the caller leaves, its process tree is killed.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, Router, post
from litestar.params import FromPath, JSONBody
from litestar.types import ASGIApp

from handiwork.api.control import Injected
from handiwork.api.errors import told
from handiwork.api.sandboxes import check_entries
from handiwork.api.streams import Emit, LiveResponse, while_called
from handiwork.model.errors import ConfigError, HandiworkError, sole
from handiwork.model.sandbox import ExecRequest, ExecResult
from handiwork.model.wire import ExecBody, ExecFrame
from handiwork.sandboxes.protocol import Process, Sandbox

MAX_BODY_BYTES = 16 * 1024 * 1024
COLLECTED_BYTES = 8 * 1024 * 1024
"""Of each stream, unless told, of a command that is run to its end."""
NO_LIMIT = 0
NDJSON = "application/x-ndjson"


@post("/{sandbox_id:str}/exec", status_code=200, request_max_body_size=MAX_BODY_BYTES)
async def run_command(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    data: JSONBody[ExecBody],
) -> ExecResult:
    """Run a command to its end; bytes are base64. Failing and timing out are results."""
    command = _checked(data, COLLECTED_BYTES)
    sandbox = await control.sandboxes.use(sandbox_id)
    return await while_called(request, sandbox.exec(command))


@post("/{sandbox_id:str}/exec/stream", status_code=200, request_max_body_size=MAX_BODY_BYTES)
async def stream_command(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    data: JSONBody[ExecBody],
) -> ASGIApp:
    """Run a command; a line of JSON for each piece of output, the last one with the result."""
    command = _checked(data, NO_LIMIT)
    sandbox = await control.sandboxes.use(sandbox_id)

    async def body(emit: Emit) -> None:
        try:
            await _run(sandbox, command, emit)
        except HandiworkError as error:
            await emit(_line(ExecFrame(error=told(error)[1])))

    return LiveResponse(body, media_type=NDJSON, stopping=request.app.state.stopping)


def _checked(body: ExecBody, output_limit_bytes: int) -> ExecRequest:
    check_texts(body.argv, body.cwd, body.user)
    check_entries("env", body.env)
    given = {name: getattr(body, name) for name in body.__struct_fields__}
    if body.output_limit_bytes is None:
        given["output_limit_bytes"] = output_limit_bytes
    return ExecRequest(**given)


def check_texts(argv: Sequence[str], cwd: str, user: str) -> None:
    """ConfigError unless each can be an argument."""
    for field, texts in (("argv", argv), ("cwd", (cwd,)), ("user", (user,))):
        if any("\0" in text for text in texts):
            raise ConfigError(f"{field}: must not contain NUL")


async def _run(sandbox: Sandbox, command: ExecRequest, emit: Emit) -> None:
    """Emit the frames of one command; whatever ends this ends the command."""
    unfed = msgspec.structs.replace(command, stdin=None)
    process = await sandbox.start(unfed, stdin=command.stdin is not None)
    result = None
    try:
        async with asyncio.TaskGroup() as group:
            feeding = group.create_task(_feed(process, command.stdin))
            async for stream, data in process.output():
                await emit(_line(ExecFrame(stream=stream, data=data)))
            result = await process.wait()
            feeding.cancel()
    except BaseExceptionGroup as raised:
        raise sole(raised) from None
    finally:
        if result is None:
            process.close()
    await emit(_line(ExecFrame(result=result)))


async def _feed(process: Process, stdin: bytes | None) -> None:
    if stdin is None:
        return
    # A command that ends or closes its input early has what it wanted.
    with contextlib.suppress(HandiworkError):
        await process.write(stdin)
        await process.close_stdin()


def _line(frame: ExecFrame) -> bytes:
    return msgspec.json.encode(frame) + b"\n"


routes = Router("/api/sandboxes", route_handlers=[run_command, stream_command])

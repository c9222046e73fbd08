"""`/api/sandboxes/{id}/code`: run code, to its end or as a stream of NDJSON frames.

A run lives as long as its call: when the caller leaves, it is ended.
"""

import asyncio
from typing import Any

import msgspec
from litestar import Request, Router, post
from litestar.params import FromPath, JSONBody
from litestar.types import ASGIApp

from handiwork.api.control import Injected
from handiwork.api.errors import told
from handiwork.api.exec import NDJSON
from handiwork.api.streams import Emit, LiveResponse, while_called
from handiwork.model.code import CodeLimits, CodeRequest, CodeResult, LogLine
from handiwork.model.errors import ConfigError, HandiworkError, sole
from handiwork.model.wire import MAX_CODE_BYTES, CodeAnswer, CodeBody, CodeFrame
from handiwork.sandboxes.protocol import Sandbox

MOST = CodeLimits(
    cpu_ms=3_600_000,
    wall_seconds=3_600.0,
    output_kib=16_384,
    log_kib=16_384,
    calls=1_000_000,
    call_mib=4_096,
    parallel_calls=1_024,
    frames_per_second=100_000,
)
"""What a caller may ask for."""


@post("/{sandbox_id:str}/code", status_code=200, request_max_body_size=2 * MAX_CODE_BYTES)
async def run_code(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    data: JSONBody[CodeBody],
) -> CodeAnswer:
    """Run code to its end. Failing and meeting a limit are results."""
    asked = _checked(data)
    sandbox = await control.sandboxes.use(sandbox_id)
    return _answer(await while_called(request, sandbox.run_code(asked)))


@post("/{sandbox_id:str}/code/stream", status_code=200, request_max_body_size=2 * MAX_CODE_BYTES)
async def stream_code(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    data: JSONBody[CodeBody],
) -> ASGIApp:
    """Run code; a line of JSON for each line that it logs, the last one with the result."""
    asked = _checked(data)
    sandbox = await control.sandboxes.use(sandbox_id)

    async def body(emit: Emit) -> None:
        try:
            await _run(sandbox, asked, emit)
        except HandiworkError as error:
            await emit(_line(CodeFrame(error=told(error)[1])))

    return LiveResponse(body, media_type=NDJSON, stopping=request.app.state.stopping)


def _checked(body: CodeBody) -> CodeRequest:
    if not body.name.startswith("/") or "\0" in body.name:
        raise ConfigError(f"name: {body.name[:80]!r} is no absolute path")
    for name, most in msgspec.structs.asdict(MOST).items():
        value = getattr(body.limits, name)
        if not 0 < value <= most:
            raise ConfigError(f"limits.{name} = {value}: use more than 0, at most {most}")
    return CodeRequest(
        code=body.code,
        language=body.language,
        name=body.name,
        fresh=body.fresh,
        restart=body.restart,
        scope=body.scope,
        limits=body.limits,
    )


async def _run(sandbox: Sandbox, asked: CodeRequest, emit: Emit) -> None:
    """Emit the frames of one run; whatever ends this ends the run. What waits is within its `log_kib`."""
    lines: asyncio.Queue[LogLine | None] = asyncio.Queue()
    try:
        async with asyncio.TaskGroup() as group:
            run = group.create_task(_to_its_end(sandbox, asked, lines))
            while (line := await lines.get()) is not None:
                await emit(_line(CodeFrame(log=line)))
    except BaseExceptionGroup as raised:
        raise sole(raised) from None
    await emit(_line(CodeFrame(result=_answer(run.result()))))


async def _to_its_end(
    sandbox: Sandbox, asked: CodeRequest, lines: "asyncio.Queue[LogLine | None]"
) -> CodeResult:
    try:
        return await sandbox.run_code(asked, on_log=lines.put_nowait)
    finally:
        lines.put_nowait(None)


def _answer(done: CodeResult) -> CodeAnswer:
    return CodeAnswer(
        value=msgspec.Raw(done.value_json),
        error=done.error,
        logs=done.logs,
        logs_cut=done.logs_cut,
        wall_seconds=done.wall_seconds,
    )


def _line(frame: CodeFrame) -> bytes:
    return msgspec.json.encode(frame) + b"\n"


routes = Router("/api/sandboxes", route_handlers=[run_code, stream_code])

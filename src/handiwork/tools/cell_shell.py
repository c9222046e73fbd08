"""The `bash` tool in a sandbox of isolates: an interpreter in a cell, over the files of the workspace."""

from typing import Annotated

import msgspec

from handiwork.model.code import CodeError, CodeLimits, CodeRequest, LimitKind
from handiwork.model.errors import ToolFailedError
from handiwork.tools.context import ToolContext

OUTPUT_KIB = 16_384
MOST_CPU_MS = 60_000
_GONE = (
    "[the shell was ended; the next command starts a new one in /workspace. Look which files are as"
    " they were: what this command changed is mostly not kept]"
)
_BACKGROUND = (
    "bash: commands do not go on in the background in a sandbox of the isolate tier; run it without"
    " the line '# background'"
)


class _Ended(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)]
    stdout: str
    stderr: str


async def run(context: ToolContext, command: str, seconds: float) -> str:
    """Run a command in the shell of the calling thread; returns what it wrote, ToolFailedError when it failed."""
    if command.lstrip().startswith("# background"):
        raise ToolFailedError(_BACKGROUND)
    return await _run(context, _request(context, command, seconds), seconds)


async def run_script(context: ToolContext, text: str) -> str:
    """Run a script in a shell of its own."""
    seconds = context.timeout_seconds
    request = msgspec.structs.replace(_request(context, text, seconds), fresh=True)
    return await _run(context, request, seconds)


async def restart(context: ToolContext) -> None:
    """End the shell of the calling thread."""
    request = _request(context, ":", context.timeout_seconds)
    await context.sandbox.run_code(msgspec.structs.replace(request, restart=True))


def _request(context: ToolContext, code: str, seconds: float) -> CodeRequest:
    limits = CodeLimits(
        cpu_ms=min(MOST_CPU_MS, round(seconds * 1000)), wall_seconds=seconds, output_kib=OUTPUT_KIB
    )
    return CodeRequest(code=code, language="bash", scope=context.thread_id, limits=limits)


async def _run(context: ToolContext, request: CodeRequest, seconds: float) -> str:
    done = await context.sandbox.run_code(request)
    if done.error is not None:
        raise ToolFailedError(f"bash: {_why(done.error, seconds)}\n{_GONE}")
    try:
        ended = msgspec.json.decode(done.value_json, type=_Ended)
    except msgspec.DecodeError:
        raise ToolFailedError(f"bash: the shell said what it must not\n{_GONE}") from None
    code = f"exit code {ended.exit_code}" if ended.exit_code else ""
    parts = (ended.stdout.rstrip("\n"), ended.stderr.rstrip("\n"), code)
    text = "\n".join(part for part in parts if part)
    if ended.exit_code:
        raise ToolFailedError(text)
    return text


def _why(error: CodeError, seconds: float) -> str:
    if error.limit is LimitKind.WALL:
        return f"bash command timed out after {seconds}s"
    return error.message

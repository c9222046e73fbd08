"""The stock `bash` tool."""

from handiwork.model.errors import ToolFailedError
from handiwork.tools.context import ToolContext
from handiwork.tools.registry import tool
from handiwork.tools.shell_process import CommandEnd
from handiwork.tools.spool import Collector

_REPLACED = "[the former shell was gone: this one starts in /workspace with fresh variables]"
_ENDED = "[the shell ended with this command; the next command starts a new one]"


@tool("bash", ordered=True, keeps_time=True)
async def bash(
    context: ToolContext,
    command: str | None = None,
    restart: bool | None = None,
    timeout_ms: int | None = None,
) -> str:
    """Run a command in a persistent bash shell."""
    if restart:
        await context.shell.restart()
        return "bash session restarted"
    if not command:
        raise ToolFailedError("bash: command is required")
    if timeout_ms is not None and timeout_ms < 0:
        raise ToolFailedError("bash: timeout_ms must not be negative")
    seconds = context.timeout_seconds
    if timeout_ms:
        seconds = min(timeout_ms / 1000.0, context.longest_seconds)
    output = Collector(context.spool, context.tool_use_id)
    end, replaced = await context.shell.run(command, output, timeout_seconds=seconds)
    text = _told(end, seconds)
    if replaced:
        text = f"{_REPLACED}\n{text}" if text else _REPLACED
    if end.exit_code:
        raise ToolFailedError(text)
    return text


def _told(end: CommandEnd, seconds: float) -> str:
    """Return what the model reads: the output, then how it ended where that is not a plain 0."""
    if end.timed_out:
        parts = [f"bash: bash command timed out after {seconds}s", end.output, _ENDED]
    else:
        parts = [end.output]
        parts += [f"exit code {end.exit_code}"] if end.exit_code else []
        parts += [_ENDED] if end.shell_ended else []
    return "\n".join(part for part in parts if part)

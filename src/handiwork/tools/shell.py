"""The stock `bash` tool."""

import re

from handiwork.model.errors import ToolFailedError
from handiwork.model.sandbox import OUT_OF_MEMORY
from handiwork.tools import cell_shell
from handiwork.tools.context import ToolContext
from handiwork.tools.registry import tool
from handiwork.tools.shell_process import CommandEnd
from handiwork.tools.spool import Collector

_REPLACED = "[the former shell was gone: this one starts in /workspace with fresh variables]"
_ENDED = "[the shell ended with this command; the next command starts a new one]"
_OUT_OF_TIME = (
    "[the shell and all that it had started were ended; the next command starts a new one. Begin a"
    " long command with the line '# background' or '# background after 30s' to let it go on]"
)
# Possessive, so that no line takes longer than its length.
_DIRECTIVE = re.compile(
    r"#[ \t]*background(?P<after>[ \t]+after(?:[ \t]+(?P<seconds>[0-9]{1,6})[ \t]*+s?)?)?[ \t]*"
)


@tool("bash", ordered=True, keeps_time=True)
async def bash(
    context: ToolContext,
    command: str | None = None,
    restart: bool | None = None,
    timeout_ms: int | None = None,
) -> str:
    """Run a command in a persistent bash shell."""
    if restart and context.sandbox.languages:
        await cell_shell.restart(context)
        return "bash session restarted"
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
    if context.sandbox.languages:
        return await cell_shell.run(context, command, seconds)
    first, _, rest = command.partition("\n")
    if directive := _DIRECTIVE.fullmatch(first):
        return await _background(context, directive, rest, seconds)
    output = Collector(context.spool, context.tool_use_id)
    end, replaced = await context.shell.run(command, output, timeout_seconds=seconds)
    text = _told(end, seconds, await context.jobs.news())
    if replaced:
        text = f"{_REPLACED}\n{text}" if text else _REPLACED
    if end.exit_code:
        raise ToolFailedError(text)
    return text


async def _background(
    context: ToolContext, directive: re.Match[str], command: str, seconds: float
) -> str:
    """Run a command as a job in a copy of the shell; with `after`, look at it for so long first."""
    if not command.strip() or "\0" in command:
        raise ToolFailedError("bash: after the line '# background' a command is required")
    job = await context.jobs.start(command, await context.shell.state())
    if not directive["after"]:
        return f"[started in the background: {job.handle()}]"
    if directive["seconds"]:
        seconds = min(float(directive["seconds"]), context.longest_seconds)
    try:
        await context.jobs.wait(job, seconds)
    except BaseException:
        await context.jobs.kill(job)
        raise
    output = await context.jobs.output(job)
    if job.running:
        note = f"[it goes on in the background after {seconds:g}s: {job.handle()}]"
        return "\n".join(filter(None, (output, note)))
    job.told = True
    ended = "" if job.code == 0 else job.lost or f"exit code {job.code}"
    memory = f"[{OUT_OF_MEMORY}]" if job.out_of_memory else ""
    text = "\n".join(filter(None, (output, ended, memory)))
    if ended:
        raise ToolFailedError(text)
    return text


def _told(end: CommandEnd, seconds: float, news: list[str]) -> str:
    """Return what the model reads: the output, then how it ended where that is not a plain 0."""
    memory = f"[{OUT_OF_MEMORY}]" if end.out_of_memory else ""
    if end.timed_out:
        late = f"bash: bash command timed out after {seconds}s"
        parts = [late, end.output, memory, _OUT_OF_TIME]
    else:
        code = f"exit code {end.exit_code}" if end.exit_code else ""
        parts = [end.output, code, memory, _ENDED if end.shell_ended else ""]
    return "\n".join(part for part in (*parts, *news) if part)

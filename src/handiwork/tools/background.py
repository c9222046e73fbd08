"""The `background` tool: background jobs by their ids, for agents that declare it."""

from typing import Literal

from handiwork.model.errors import ToolFailedError
from handiwork.tools.context import ToolContext
from handiwork.tools.jobs import Job
from handiwork.tools.registry import tool

SHOWN_COMMAND = 100
LONGEST_WAIT_SECONDS = 600.0


@tool("background", keeps_time=True)
async def background(
    context: ToolContext,
    action: Literal["start", "list", "output", "kill"],
    command: str | None = None,
    job: str | None = None,
    wait_seconds: float = 0,
) -> str:
    """Start a command that goes on in the background, list such jobs, read what one wrote (waiting for its end at most `wait_seconds`), or kill one."""
    jobs = context.jobs
    if action == "list":
        return await _listed(context)
    if action == "start":
        if not command or not command.strip() or "\0" in command:
            raise ToolFailedError("background: start needs a command")
        return f"started {(await jobs.start(command)).handle()}"
    if not job:
        raise ToolFailedError(f"background: {action} needs a job, such as job_0123abcd")
    found = await jobs.find(job)
    if action == "kill":
        was = found.state
        if found.running:
            await jobs.kill(found)
        found.told = not found.running
        return f"{found.id} was {was}; it is {found.state}"
    if not 0 <= wait_seconds <= LONGEST_WAIT_SECONDS:
        raise ToolFailedError(f"background: wait_seconds must be 0-{LONGEST_WAIT_SECONDS:g}")
    await jobs.wait(found, wait_seconds)
    found.told = not found.running
    return f"{found.id}: {found.state}\n{await jobs.output(found)}"


async def _listed(context: ToolContext) -> str:
    known = [_line(job) for job in await context.jobs.all()]
    former = [
        f"{name}: ended (the sandbox slept or was replaced since, or it is long ago)"
        for name in await context.jobs.former()
    ]
    return "\n".join(known + former) or "no background jobs"


def _line(job: Job) -> str:
    job.told = not job.running
    shown = " ".join(job.command.split())[:SHOWN_COMMAND]
    return f"{job.id}: {job.state}; pid {job.process.pid}; {job.path}; {shown}"

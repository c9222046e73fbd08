"""`handiwork process …`: processes of a sandbox that outlive the call that started them."""

import signal
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import say, show, show_one, warn
from handiwork.client.handiwork import Handiwork
from handiwork.client.processes import Processes
from handiwork.model.process import ProcessDetail, ProcessRecord, ProcessState
from handiwork.model.sandbox import OUT_OF_MEMORY
from handiwork.model.wire import LogFrame

app = typer.Typer(
    help="Processes of a sandbox that outlive the call that started them.", no_args_is_help=True
)
COLUMNS = ("id", "state", "pid", "exit_code", "reason", "started_at", "argv")


async def _of(client: Handiwork, sandbox_id: str) -> Processes:
    return (await client.sandboxes.get(sandbox_id)).processes


@app.command(context_settings={"ignore_unknown_options": True})
def start(
    context: typer.Context,
    sandbox_id: str,
    command: Annotated[list[str], typer.Argument(help="Program and arguments.")],
    cwd: Annotated[str, typer.Option()] = "/workspace",
    user: Annotated[str, typer.Option()] = "root",
) -> None:
    """Start a process and print its id; it lives as long as its sandbox does."""

    async def verb(client: Handiwork) -> str:
        return (await (await _of(client, sandbox_id)).start(command, cwd=cwd, user=user)).id

    invocation: Invocation = context.obj
    say(invocation.call(verb))


@app.command("list")
def list_(
    context: typer.Context,
    sandbox_id: str,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List them, newest first, also those that ended."""

    async def verb(client: Handiwork) -> list[ProcessRecord]:
        return await (await _of(client, sandbox_id)).list()

    invocation: Invocation = context.obj
    show(invocation.call(verb), COLUMNS, as_json=as_json)


@app.command("show")
def show_(
    context: typer.Context,
    sandbox_id: str,
    process_id: str,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show one, and where it listens."""

    async def verb(client: Handiwork) -> ProcessDetail:
        return await (await _of(client, sandbox_id)).get(process_id)

    invocation: Invocation = context.obj
    detail = invocation.call(verb)
    if as_json:
        show_one(detail, as_json=True)
        return
    show_one(detail.process, as_json=False)
    for one in detail.listeners:
        say(f"listens on {one.address}:{one.port}")


@app.command()
def logs(
    context: typer.Context,
    sandbox_id: str,
    process_id: str,
    after: Annotated[int, typer.Option(min=0, help="From this position on.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until it ends.")] = False,
) -> None:
    """Print what it wrote, as far as it is kept; its streams become ours."""

    async def verb(client: Handiwork) -> None:
        found = (await _of(client, sandbox_id)).logs(process_id, after=after, follow=follow)
        await _print(found, after)

    invocation: Invocation = context.obj
    invocation.call(verb)


@app.command()
def kill(
    context: typer.Context,
    sandbox_id: str,
    process_id: str,
    number: Annotated[int, typer.Option("--signal", min=1, max=64)] = signal.SIGTERM,
) -> None:
    """Signal one and all it started."""

    async def verb(client: Handiwork) -> None:
        await (await _of(client, sandbox_id)).signal(process_id, number)

    invocation: Invocation = context.obj
    invocation.call(verb)


@app.command()
def remove(context: typer.Context, sandbox_id: str, process_id: str) -> None:
    """Kill one with all it started, and forget it and its log."""

    async def verb(client: Handiwork) -> None:
        await (await _of(client, sandbox_id)).remove(process_id)

    invocation: Invocation = context.obj
    invocation.call(verb)


async def _print(frames: AsyncIterator[LogFrame], position: int) -> None:
    async for frame in frames:
        if frame.process is not None:
            _tell_end(frame.process)
            return
        if frame.at > position:
            warn(f"{frame.at - position} bytes before this are not kept any more")
        position = frame.at + len(frame.data)
        out = sys.stdout if frame.stream == "stdout" else sys.stderr
        out.buffer.write(frame.data)
        out.flush()


def _tell_end(process: ProcessRecord) -> None:
    if process.state is not ProcessState.RUNNING:
        why = process.reason or f"exit code {process.exit_code}"
        why += f" ({OUT_OF_MEMORY})" if process.out_of_memory else ""
        warn(f"{process.id} {process.state.value}: {why}")

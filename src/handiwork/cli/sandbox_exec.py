"""`handiwork sandbox exec`: a command's streams become ours as they come, however much it writes."""

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import show_one, warn
from handiwork.client.handiwork import Handiwork
from handiwork.client.sandboxes import ExecOptions, Sandbox
from handiwork.model.errors import ConfigError
from handiwork.model.sandbox import OUT_OF_MEMORY, ExecResult
from handiwork.model.wire import MAX_STDIN_BYTES

SETTINGS = {"allow_interspersed_args": False}
"""What stands behind the sandbox's id is the command's, options of the names of ours too."""


def execute(  # noqa: PLR0913  options, each with a default
    context: typer.Context,
    sandbox_id: str,
    command: Annotated[list[str], typer.Argument(help="Program and arguments.")],
    *,
    cwd: Annotated[str, typer.Option()] = "/workspace",
    env: Annotated[
        list[str],
        typer.Option(metavar="NAME=VALUE", help="Added to the sandbox's; may be repeated."),
    ] = [],  # noqa: B006  typer reads the default and never changes it
    user: Annotated[str, typer.Option(help="root, nobody or uid[:gid].")] = "root",
    timeout_seconds: Annotated[float, typer.Option()] = 120.0,
    stdin: Annotated[
        bool, typer.Option("--stdin", "-i", help="Give it our standard input, 8 MiB at most.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Its result at its end, of each stream the first 8 MiB.")
    ] = False,
) -> None:
    """Run a command; its output and exit code become ours. Options stand before the sandbox's id."""
    argv = _command(command)
    options = ExecOptions(
        cwd=cwd,
        env=dict(map(_variable, env)),
        user=user,
        timeout_seconds=timeout_seconds,
        stdin=_our_input() if stdin else None,
    )

    async def verb(client: Handiwork) -> ExecResult:
        box = await client.sandboxes.get(sandbox_id)
        return await (box.exec(argv, **options) if as_json else _stream(box, argv, options))

    invocation: Invocation = context.obj
    result = invocation.call(verb)
    if as_json:
        show_one(result, as_json=True)
    tell(result, timeout_seconds)
    raise typer.Exit(result.exit_code)


def tell(result: ExecResult, timeout_seconds: float | None = None) -> None:
    """Say on standard error what the exit code does not."""
    if result.timed_out:
        warn(f"stopped after {timeout_seconds} s")
    if result.truncated:
        warn("truncated: the rest of its output was dropped; without --json all of it is printed")
    if result.out_of_memory:
        warn(OUT_OF_MEMORY)


async def _stream(box: Sandbox, argv: Sequence[str], options: ExecOptions) -> ExecResult:
    """Pass on what it writes; it waits while ours are not read, and ends with who reads them."""
    async with box.exec_stream(argv, **options) as process:
        async for stream, data in process.output():
            try:
                await asyncio.to_thread(_pass_on, stream, data)
            except BrokenPipeError:
                _close_quietly(stream)
                raise typer.Exit(128 + signal.SIGPIPE) from None
        return await process.wait()


def _pass_on(stream: Literal["stdout", "stderr"], data: bytes) -> None:
    ours = sys.stdout if stream == "stdout" else sys.stderr
    ours.buffer.write(data)
    ours.flush()


def _close_quietly(stream: Literal["stdout", "stderr"]) -> None:
    """Let what is still buffered go nowhere: Python would complain of it at its end."""
    ours = sys.stdout if stream == "stdout" else sys.stderr
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, ours.fileno())
    os.close(nowhere)


def _command(given: Sequence[str]) -> Sequence[str]:
    if given[0] == "--" and given[1:]:
        return given[1:]
    if given[0].startswith("-"):
        raise ConfigError(
            f"{given[0][:80]!r}: options stand before the sandbox's id; a command that begins with"
            " a dash stands behind --"
        )
    return given


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConfigError(f"--env {text[:80]!r} is not NAME=VALUE")
    return name, value


def _our_input() -> bytes:
    data = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1)
    if len(data) > MAX_STDIN_BYTES:
        raise ConfigError(
            f"standard input is larger than {MAX_STDIN_BYTES} bytes: write it to a file of the"
            " sandbox first (put-tree)"
        )
    return data

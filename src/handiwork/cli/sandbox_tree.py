"""`handiwork sandbox get-tree` and `put-tree`: files of a sandbox as a tar."""

import sys
from pathlib import Path
from typing import IO, Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import warn
from handiwork.client.handiwork import Handiwork
from handiwork.model.errors import ConfigError
from handiwork.model.sandbox import TreeReport

STANDARD = Path("-")


def get(
    context: typer.Context,
    sandbox_id: str,
    path: Annotated[str, typer.Argument(help="A directory, or a file, inside.")],
    target: Annotated[Path, typer.Argument(help="A new file here; -: standard output.")] = STANDARD,
) -> None:
    """Write a directory's content, or one file, as a tar."""

    async def verb(client: Handiwork) -> TreeReport:
        box = await client.sandboxes.get(sandbox_id)
        return await box.files.get_tree(path, _place(target, sys.stdout.buffer))

    invocation: Invocation = context.obj
    _tell(invocation.call(verb))
    sys.stdout.flush()


def put(
    context: typer.Context,
    sandbox_id: str,
    path: Annotated[str, typer.Argument(help="A directory inside; made where it is missing.")],
    source: Annotated[Path, typer.Argument(help="A tar here; -: standard input.")] = STANDARD,
) -> None:
    """Unpack a tar, which is not compressed, into a directory."""

    async def verb(client: Handiwork) -> TreeReport:
        box = await client.sandboxes.get(sandbox_id)
        return await box.files.put_tree(path, _place(source, sys.stdin.buffer))

    invocation: Invocation = context.obj
    _tell(invocation.call(verb))


def _place(path: Path, standard: IO[bytes]) -> Path | IO[bytes]:
    if path != STANDARD:
        return path
    if standard.isatty():
        raise ConfigError("a tar is nothing for a terminal: name a file, or lead it elsewhere")
    return standard


def _tell(report: TreeReport) -> None:
    """Say what is not as it was: on standard error, for the tar may be on the other one."""
    for name in report.skipped:
        warn(f"left out: {name}")
    if report.skipped_count > len(report.skipped):
        warn(f"left out: {report.skipped_count - len(report.skipped)} more")
    if report.notes:
        warn(f"the sandbox's tar says: {report.notes}")

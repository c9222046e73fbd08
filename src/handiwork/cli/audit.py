"""`handiwork audit`: every egress decision."""

from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import EXIT_FAILED, say, show
from handiwork.egress.audit import verify as find_breaks
from handiwork.model.errors import ConfigError

app = typer.Typer(help="Every egress decision, on record.", no_args_is_help=True)


@app.command("list")
def list_(
    context: typer.Context,
    session: Annotated[str, typer.Option(help="Only this session.")] = "",
    sandbox: Annotated[str, typer.Option(help="Only this sandbox.")] = "",
    denied: Annotated[bool, typer.Option("--denied", help="Only refusals.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List decisions, newest first."""
    invocation: Invocation = context.obj
    rows = invocation.call(
        lambda client: client.audit.query(
            session_id=session or None,
            sandbox_id=sandbox or None,
            allowed=False if denied else None,
            limit=limit,
        )
    )
    columns = (
        "at",
        "allowed",
        "rules",
        "method",
        "host",
        "path",
        "status",
        "duration_ms",
        "reason",
    )
    show(rows, columns, as_json=as_json)


@app.command()
def verify(context: typer.Context) -> None:
    """Check the chains of this host's data directory; exit code 1 when a line was cut or changed."""
    invocation: Invocation = context.obj
    directory = invocation.layout.audit
    try:
        problems = find_breaks(directory)
    except OSError as error:
        raise ConfigError(f"{directory} cannot be read: {error.strerror}") from None
    for problem in problems:
        say(f"{problem.segment}, line {problem.line}: {problem.message}")
    if problems:
        raise typer.Exit(EXIT_FAILED)
    say(f"every chain in {directory} holds")

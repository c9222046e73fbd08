"""`handiwork webhook …`: what brains told us."""

from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import show

app = typer.Typer(help="Webhooks that were received.", no_args_is_help=True)


@app.callback()
def noun() -> None:
    """Look at the webhooks that were received."""


@app.command("list")
def list_(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List webhooks whose signature held, newest first."""
    invocation: Invocation = context.obj
    rows = invocation.call(lambda client: client.webhooks.list(limit=limit))
    show(rows, ("received_at", "id", "kind", "subject_id", "known"), as_json=as_json)

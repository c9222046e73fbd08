"""`handiwork hook …`: the operator's Python that requests pass where a rule says so."""

from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import show

app = typer.Typer(help="Hooks: your Python on requests and answers.", no_args_is_help=True)


@app.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List hooks: what each looks at, and why a file as it is now is not in force."""
    invocation: Invocation = context.obj
    rows = invocation.call(lambda client: client.hooks.list())
    show(rows, ("name", "stages", "digest", "error"), as_json=as_json)

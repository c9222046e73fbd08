"""`handiwork session …`: sessions of the brains we serve."""

from pathlib import Path
from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import show, show_one
from handiwork.client.handiwork import Handiwork
from handiwork.model.session import SessionEvent

app = typer.Typer(help="Sessions of the brains we serve.", no_args_is_help=True)


@app.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List sessions, newest first."""
    invocation: Invocation = context.obj
    rows = invocation.call(lambda client: client.sessions.list())
    show(rows, ("id", "state", "agent_name", "tier", "sandbox_id", "reason"), as_json=as_json)


@app.command("show")
def show_(
    context: typer.Context,
    session_id: str,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Show one session."""
    invocation: Invocation = context.obj
    show_one(invocation.call(lambda client: client.sessions.get(session_id)), as_json=as_json)


@app.command()
def events(
    context: typer.Context,
    session_id: str,
    after: Annotated[int, typer.Option(help="Only events after this sequence.")] = 0,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List what happened to a session."""

    async def verb(client: Handiwork) -> list[SessionEvent]:
        return [event async for event in client.sessions.events(session_id, after=after)]

    invocation: Invocation = context.obj
    rows = invocation.call(verb)
    show(rows, ("sequence", "at", "kind", "data"), as_json=as_json)


@app.command()
def outputs(
    context: typer.Context,
    session_id: str,
    to: Annotated[Path | None, typer.Option(help="Copy them into this directory.")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List what the agent left in /workspace/outputs, or copy it."""
    invocation: Invocation = context.obj
    if to is None:
        rows = invocation.call(lambda client: client.sessions.outputs(session_id))
        show(list(rows), ("path", "size"), as_json=as_json)
    else:
        copied = invocation.call(lambda client: client.sessions.download_outputs(session_id, to))
        show_one(copied, as_json=as_json)


@app.command()
def stop(context: typer.Context, session_id: str) -> None:
    """Stop serving a session: running calls are cancelled, its sandbox sleeps."""
    invocation: Invocation = context.obj
    invocation.call(lambda client: client.sessions.stop(session_id))

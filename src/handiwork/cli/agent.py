"""`handiwork agent …`: what the operator decides for an agent of the brain."""

from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import show

app = typer.Typer(help="Tier and policy of the brain's agents.", no_args_is_help=True)


@app.command("set")
def set_(
    context: typer.Context,
    agent_id: str,
    tier: Annotated[str, typer.Option(help="Empty: the environment's.")] = "",
    policy: Annotated[str, typer.Option(help="Empty: the environment's.")] = "",
) -> None:
    """Set tier and policy of an agent."""
    invocation: Invocation = context.obj
    invocation.call(lambda client: client.agents.put(agent_id, tier=tier, policy=policy))


@app.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List agents that something was decided for."""
    invocation: Invocation = context.obj
    rows = invocation.call(lambda client: client.agents.list())
    show(rows, ("agent_id", "tier", "policy", "updated_at"), as_json=as_json)

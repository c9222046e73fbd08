"""`handiwork agent …`: what the operator decides for an agent of the brain."""

from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import show
from handiwork.model.errors import ConfigError
from handiwork.model.sandbox import Limits

_COLUMNS = (
    "agent_id",
    "environment_id",
    "tier",
    "policy",
    "image",
    "size",
    "variables",
    "updated_at",
)

app = typer.Typer(help="Tier, policy and variables of the brain's agents.", no_args_is_help=True)


@app.command("set")
def set_(  # noqa: PLR0913  what may be decided, each with a default
    context: typer.Context,
    agent_id: str,
    *,
    environment: Annotated[str, typer.Option(help="Needed where more than one is served.")] = "",
    tier: Annotated[str, typer.Option(help="Empty: the environment's.")] = "",
    policy: Annotated[str, typer.Option(help="Empty: the environment's.")] = "",
    image: Annotated[str, typer.Option(help="Empty: the environment's.")] = "",
    size: Annotated[
        str, typer.Option(help="small, standard or large; empty: the default limits.")
    ] = "",
    memory_mib: Annotated[
        int | None, typer.Option(help="Exact, in place of a size.", min=1)
    ] = None,
    cpu_percent: Annotated[int | None, typer.Option(help="Exact; 100 is one core.", min=1)] = None,
    disk_mib: Annotated[int | None, typer.Option(help="Exact.", min=1)] = None,
    disk_read_mib_per_second: Annotated[
        int | None, typer.Option(help="Exact; where `doctor` tells disk_read_rate.", min=1)
    ] = None,
    disk_write_mib_per_second: Annotated[
        int | None, typer.Option(help="Exact; where `doctor` tells disk_write_rate.", min=1)
    ] = None,
    variable: Annotated[
        list[str],
        typer.Option(metavar="NAME=SECRET", help="A placeholder for a secret; may be repeated."),
    ] = [],  # noqa: B006  typer reads the default and never changes it
) -> None:
    """Set what holds for an agent; what is not given is the environment's again."""
    invocation: Invocation = context.obj
    given = {
        "memory_mib": memory_mib,
        "cpu_percent": cpu_percent,
        "disk_mib": disk_mib,
        "disk_read_mib_per_second": disk_read_mib_per_second,
        "disk_write_mib_per_second": disk_write_mib_per_second,
    }
    exact = {name: value for name, value in given.items() if value}
    limits = Limits(**exact) if exact else None
    variables = dict(_pair(one) for one in variable)
    invocation.call(
        lambda client: client.agents.put(
            agent_id,
            environment=environment,
            tier=tier,
            policy=policy,
            image=image,
            size=size,
            limits=limits,
            variables=variables,
        )
    )


def _pair(text: str) -> tuple[str, str]:
    name, equals, secret = text.partition("=")
    if not (name and equals and secret):
        raise ConfigError(f"--variable {text[:80]!r} is not NAME=SECRET")
    return name, secret


@app.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List agents that something was decided for."""
    invocation: Invocation = context.obj
    rows = invocation.call(lambda client: client.agents.list())
    show(rows, _COLUMNS, as_json=as_json)

"""`handiwork policy …`: what sandboxes may reach."""

from pathlib import Path
from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import console, show
from handiwork.client import Handiwork
from handiwork.model.errors import ConfigError, PolicyDeniedError
from handiwork.model.policy import parse_policy

app = typer.Typer(help="What sandboxes may reach.", no_args_is_help=True)


@app.command()
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="TOML or JSON.")],
    agent: Annotated[str, typer.Option(help="Make it the policy of this agent.")] = "",
) -> None:
    """Check a policy file and write it under the name it gives itself."""
    text, kind = _read(file)
    name = parse_policy(text, format=kind).name

    async def verb(client: Handiwork) -> None:
        await client.policies.put(name, text, format=kind)
        if agent:
            await client.agents.put(agent, policy=name)

    invocation: Invocation = context.obj
    invocation.call(verb)
    console.print(f"policy {name} holds now" + (f", for agent {agent}" if agent else ""))


def _read(file: Path) -> tuple[str, str]:
    try:
        return file.read_text(), "json" if file.suffix == ".json" else "toml"
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None


@app.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List policies."""
    invocation: Invocation = context.obj
    rows = invocation.call(lambda client: client.policies.list())
    show(rows, ("name", "version", "updated_at"), as_json=as_json)


@app.command("show")
def show_(context: typer.Context, name: str) -> None:
    """Print one policy as JSON."""
    invocation: Invocation = context.obj
    show([invocation.call(lambda client: client.policies.get(name))], (), as_json=True)


@app.command()
def delete(context: typer.Context, name: str) -> None:
    """Delete a policy; what it was a layer of denies until another is named."""
    invocation: Invocation = context.obj
    invocation.call(lambda client: client.policies.delete(name))


@app.command("test")
def decide(
    context: typer.Context,
    name: str,
    url: str,
    method: Annotated[str, typer.Option(help="HTTP method.")] = "GET",
) -> None:
    """Say how the policy decides on a URL; exit code 3 when it refuses."""
    invocation: Invocation = context.obj
    decision = invocation.call(lambda client: client.policies.test(name, url, method=method))
    rule = decision.rules[-1] if decision.rules else "default"
    if not decision.allowed:
        raise PolicyDeniedError(
            f"{method} {url}: refused by {rule}: {decision.reason}", rule_id=rule
        )
    console.print(f"{method} {url}: permitted by {rule}")

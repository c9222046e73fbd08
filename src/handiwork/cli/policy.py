"""`handiwork policy …`: what sandboxes may reach."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import say, show, show_one
from handiwork.client.handiwork import Handiwork
from handiwork.model.errors import ConfigError, NotFoundError, PolicyDeniedError
from handiwork.model.policy import Policy, parse_policy

app = typer.Typer(help="What sandboxes may reach.", no_args_is_help=True)


@app.command()
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="TOML or JSON.")],
    agent: Annotated[str, typer.Option(help="Make it the policy of this agent.")] = "",
    environment: Annotated[
        str, typer.Option(help="The agent's; needed where more than one is served.")
    ] = "",
) -> None:
    """Check a policy file and write it under the name it gives itself."""
    policy = _read(file)

    async def verb(client: Handiwork) -> None:
        await client.policies.put(policy)
        if agent:
            tier, variables = await _decided(client, agent, environment)
            await client.agents.put(
                agent,
                environment=environment,
                tier=tier,
                policy=policy.name,
                variables=variables,
            )

    invocation: Invocation = context.obj
    invocation.call(verb)
    say(f"policy {policy.name} holds now" + (f", for agent {agent}" if agent else ""))


async def _decided(
    client: Handiwork, agent: str, environment: str
) -> tuple[str, Mapping[str, str]]:
    """Return tier and variables of the agent, which a new policy leaves as they are."""
    try:
        settings = await client.agents.get(agent, environment=environment)
    except NotFoundError:
        return "", {}
    return settings.tier, settings.variables


def _read(file: Path) -> Policy:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}") from None
    try:
        return parse_policy(text, format="json" if file.suffix == ".json" else "toml")
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None


@app.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List policies."""
    invocation: Invocation = context.obj
    versions = invocation.call(lambda client: client.policies.list())
    rows = [
        {
            "name": one.policy.name,
            "version": one.version,
            "rules": len(one.policy.rules),
            "updated_at": one.updated_at,
            "description": one.policy.description,
        }
        for one in versions
    ]
    show(rows, ("name", "version", "rules", "updated_at", "description"), as_json=as_json)


@app.command("show")
def show_(context: typer.Context, name: str) -> None:
    """Print one policy as JSON."""
    invocation: Invocation = context.obj
    show_one(invocation.call(lambda client: client.policies.get(name)), as_json=True)


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
    decision = invocation.call(
        lambda client: client.policies.test(name, url, method=method)
    ).decision
    rule = decision.rules[-1] if decision.rules else "default"
    if not decision.allowed:
        raise PolicyDeniedError(
            f"{method} {url}: refused by {rule}: {decision.reason}", rule_id=rule
        )
    say(f"{method} {url}: permitted by {rule}")

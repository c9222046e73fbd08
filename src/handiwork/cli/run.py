"""`handiwork run "task" --agent ID`: a session of an agent that the brain already has."""

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import EXIT_FAILED, say
from handiwork.model.errors import ConfigError

if TYPE_CHECKING:
    from handiwork.model.run import RunEvent

SHOWN_CHARACTERS = 400


def run_task(
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="What the agent is told.")],
    agent: Annotated[str, typer.Option(help="The agent's id at the brain.")],
    environment: Annotated[
        str, typer.Option(help="The environment's id; default: the local brain's.")
    ] = "",
    key_file: Annotated[
        Path | None, typer.Option(help="File with the brain's API key; default: the local one's.")
    ] = None,
) -> None:
    """Create a session, send the task, print what happens until the turn ends."""
    invocation: Invocation = context.obj
    base_url, environment_id, key = _brain(invocation, environment, key_file)
    reason = asyncio.run(_run(base_url, key, environment_id, agent, task))
    if reason != "end_turn":
        say(f"the turn ended with {reason}")
        raise typer.Exit(EXIT_FAILED)


def _brain(invocation: Invocation, environment: str, key_file: Path | None) -> tuple[str, str, str]:
    layout = invocation.layout
    try:
        addresses = json.loads(layout.addresses.read_text())
    except OSError:
        raise ConfigError(
            f"no control plane runs on {layout.root}; start one with `handiwork up`"
        ) from None
    served = {one.id: one.base_url for one in invocation.settings.environments}
    environment_id = environment or addresses["environment_id"]
    base_url = served.get(environment_id, addresses["local_brain"])
    file = key_file or layout.local_brain_key
    if environment_id in served and key_file is None:
        raise ConfigError(f"environment {environment_id} needs --key-file with the brain's API key")
    try:
        return base_url, environment_id, file.read_text().strip()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None


async def _run(base_url: str, key: str, environment_id: str, agent: str, task: str) -> str:
    # Imported here: loading the SDK takes longer than most verbs do.
    from handiwork.brains.conversation import conversation

    async with conversation(base_url=base_url, api_key=key) as talk:
        session_id = await talk.make_session(agent, environment_id, title=task[:60])
        say(f"session {session_id}")
        async with talk.following(session_id) as happenings:
            await talk.say(session_id, task)
            async for happening in happenings:
                _print(happening)
                if happening.stop_reason and happening.stop_reason != "requires_action":
                    return happening.stop_reason
                if happening.kind in {"session.status_terminated", "session.deleted"}:
                    return happening.kind
    return "closed"


def _print(happening: "RunEvent") -> None:
    match happening.kind:
        case "agent.message":
            say(happening.text)
        case "agent.tool_use" | "agent.custom_tool_use":
            call = f"→ {happening.tool} {json.dumps(dict(happening.input))[:SHOWN_CHARACTERS]}"
            say(call, "cyan")
        case "user.tool_result" | "user.custom_tool_result":
            style = "red" if happening.is_error else "dim"
            say(happening.text[:SHOWN_CHARACTERS], style)
        case "session.error":
            say(happening.text or "the brain reports an error", "red")
        case _:
            pass

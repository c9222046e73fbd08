"""`handiwork run "task"`: one call, by a control plane that runs, or by one made for it.

With `--environment` or an agent's brain's own API key (`--agent ID --key-file F`) the brain is
spoken to directly: of brains elsewhere the control plane holds no key that starts sessions.
"""

import asyncio
import contextlib
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import uvloop

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import EXIT_DENIED, EXIT_FAILED, say, show_one
from handiwork.cli.run_model import DEFAULT_KEY, Provider, define
from handiwork.client.handiwork import Handiwork
from handiwork.model.errors import ConfigError, HandiworkError, NotFoundError
from handiwork.model.run import Run, RunEvent, RunState
from handiwork.model.session import SessionState
from handiwork.model.wire import MAX_RUN_SECONDS, RunBody
from handiwork.process import raise_descriptors

SHOWN_CHARACTERS = 400
CANCEL_SECONDS = 30.0


def run_task(  # noqa: PLR0913, PLR0917  each is an option that a person types
    context: typer.Context,
    task: Annotated[str, typer.Argument(help="What the agent is told.")],
    agent: Annotated[str, typer.Option(help="An agent's id at the brain.")] = "",
    model: Annotated[
        str, typer.Option(help="A model's name; or anthropic or openai, defined on the way.")
    ] = "",
    base_url: Annotated[str, typer.Option(help="Of the model's API; default: its own.")] = "",
    model_id: Annotated[str, typer.Option(help="The provider's name of the model.")] = "",
    key_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the model's key ({DEFAULT_KEY}), or the brain's."),
    ] = None,
    system_file: Annotated[
        Path | None, typer.Option(help="What an agent made for the model is told.")
    ] = None,
    environment: Annotated[
        str, typer.Option(help="An environment of a brain elsewhere; needs --agent, --key-file.")
    ] = "",
    tier: Annotated[str, typer.Option(help="Of this session's sandbox.")] = "",
    policy: Annotated[str, typer.Option(help="Of this session alone.")] = "",
    timeout: Annotated[
        float, typer.Option(min=1, max=MAX_RUN_SECONDS, help="Seconds; then it is interrupted.")
    ] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Only the record, at the end.")] = False,
) -> None:
    """Give an agent a task, show what it does, print its answer, files and cost."""
    invocation: Invocation = context.obj
    if bool(agent) == bool(model):
        raise ConfigError("name one: --agent ID, or --model NAME")
    if agent and (environment or key_file):
        _refuse_with_a_key(context)
        _directly(invocation, task, agent, environment, key_file)
        return
    if agent and (base_url or model_id):
        raise ConfigError("--base-url and --model-id define a model; an agent has one")
    if environment:
        raise ConfigError("--environment needs --agent, an agent of that brain, and --key-file")
    body = RunBody(
        task=_checked(task),
        agent=agent,
        model=model,
        system=_text(system_file) if system_file else "",
        tier=tier,
        policy=policy,
        timeout_seconds=timeout,
    )
    provider = Provider(kind=model, base_url=base_url, model_id=model_id, key_file=key_file)
    try:
        raise_descriptors()
        ended, refused = uvloop.run(_served(invocation, body, provider, as_json=as_json))
    except asyncio.CancelledError:
        say("stopped before the run ended", "red")
        raise typer.Exit(EXIT_FAILED) from None
    _tell_end(ended, as_json=as_json)
    if refused:
        say(f"the session was refused: {refused}", "red")
        raise typer.Exit(EXIT_DENIED)
    if ended.state is not RunState.ENDED or ended.stop_reason != "end_turn":
        raise typer.Exit(EXIT_FAILED)


async def _served(
    invocation: Invocation, body: RunBody, provider: Provider, *, as_json: bool
) -> tuple[Run, str]:
    """Return the run as it ended, and why its session was refused, if it was."""
    async with _control_plane(invocation, as_json=as_json) as (client, is_ours):
        body = msgspec.structs.replace(body, model=await define(client, provider))
        ended = await _followed(client, body, is_ours=is_ours, as_json=as_json)
        return ended, await _refusal(client, ended)


@asynccontextmanager
async def _control_plane(
    invocation: Invocation, *, as_json: bool
) -> AsyncIterator[tuple[Handiwork, bool]]:
    """Open a client of the one that runs; else start one for as long as the body runs."""
    if invocation.settings.client.url or invocation.is_served:
        async with invocation.client() as client:
            yield client, False
        return
    # Imported here: loading every adapter takes longer than most verbs do.
    from handiwork.app import running
    from handiwork.observe import log

    settings = invocation.settings
    log.set_up(level="error", format=settings.log.format, process="control plane")
    if not as_json:
        say("no control plane runs: one is started for this run", "dim")
    on_free_ports = msgspec.structs.replace(
        settings,
        api=msgspec.structs.replace(settings.api, port=0),
        local_brain=msgspec.structs.replace(settings.local_brain, port=0, enabled=True),
    )
    with _ended_by_sigterm():
        async with (
            running(on_free_ports) as control,
            Handiwork(socket=control.layout.api_socket) as client,
        ):
            yield client, True


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end this task as Ctrl-C does: the run is cancelled, sandboxes sleep."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise HandiworkError("this runs in no task")
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


async def _followed(client: Handiwork, body: RunBody, *, is_ours: bool, as_json: bool) -> Run:
    run: Run | None = None
    try:
        async with aclosing(client.runs.stream(body)) as told:
            async for each in told:
                if isinstance(each, RunEvent):
                    _print(each, as_json=as_json)
                    continue
                if run is None and not as_json:
                    say(f"session {each.session_id}", "dim")
                run = each
    except asyncio.CancelledError:
        await _left(client, run, is_ours=is_ours)
        raise
    if run is None or run.state is RunState.RUNNING:
        raise HandiworkError("the control plane stopped before the run ended")
    return run


async def _left(client: Handiwork, run: Run | None, *, is_ours: bool) -> None:
    """Interrupted here: a run of a control plane of our own would have nobody left to serve it."""
    if run is None or run.state is not RunState.RUNNING:
        return
    if not is_ours:
        say(f"{run.id} goes on; cancel it with POST /api/runs/{run.id}/cancel")
        return
    with contextlib.suppress(HandiworkError, TimeoutError):
        async with asyncio.timeout(CANCEL_SECONDS):
            await client.runs.cancel(run.id)


async def _refusal(client: Handiwork, run: Run) -> str:
    try:
        session = await client.sessions.get(run.session_id)
    except NotFoundError:
        return ""
    return session.reason if session.state is SessionState.REFUSED else ""


def _tell_end(run: Run, *, as_json: bool) -> None:
    if as_json:
        show_one(run, as_json=True)
        return
    for file in run.files:
        say(f"file  {file.path}  {file.size} bytes")
    usage, cost = run.usage, "not known"
    if run.list_cost is not None:
        cost = f"{run.list_cost.amount} {run.list_cost.currency} (minor units)"
    say(
        f"{run.duration_seconds:.1f} s · {usage.input_tokens} tokens in,"
        f" {usage.output_tokens} out · cost {cost}",
        "dim",
    )
    if run.state is not RunState.ENDED or run.stop_reason != "end_turn":
        say(f"the run {run.state.value}: {run.reason or run.stop_reason}", "red")
    elif run.reason:
        say(run.reason, "dim")


def _checked(task: str) -> str:
    try:
        task.encode()
        return msgspec.convert({"task": task}, RunBody).task
    except UnicodeEncodeError:
        raise ConfigError("the task is not valid UTF-8") from None
    except msgspec.ValidationError as error:
        raise ConfigError(f"the task: {error}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from None


def _refuse_with_a_key(context: typer.Context) -> None:
    """Refuse what only our own control plane can do: what is not done must not seem to be."""
    for name in ("tier", "policy", "timeout", "as_json", "system_file", "base_url", "model_id"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--json" if name == "as_json" else f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"{option} does not go with --key-file or --environment: such a session is another"
                " brain's; set it with that agent or environment, or run the agent without them"
            )


def _directly(
    invocation: Invocation, task: str, agent: str, environment: str, key_file: Path | None
) -> None:
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


def _print(happening: RunEvent, *, as_json: bool = False) -> None:
    if as_json:
        return
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

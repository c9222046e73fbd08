"""The command line: verbs by noun, one line for an error, exit code 0, 1, 2 or 3.

0 done · 1 failed · 2 usage or configuration · 3 refused by policy.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from handiwork.cli import (
    agent,
    audit,
    hook,
    image,
    model,
    policy,
    process,
    sandbox,
    secret,
    selfcheck,
    session,
    snapshot,
    tool,
    webhook,
)
from handiwork.cli.demo.command import demo
from handiwork.cli.doctor import doctor
from handiwork.cli.init import init
from handiwork.cli.invocation import Invocation
from handiwork.cli.output import EXIT_FAILED, EXIT_OK, EXIT_USAGE, fail
from handiwork.cli.run import run_task
from handiwork.cli.status import status
from handiwork.cli.up import up
from handiwork.model.errors import HandiworkError

app = typer.Typer(
    name="handiwork",
    help="The hands of AI agents, on machines you own.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for noun in (
    *(sandbox, process, session, policy, secret, agent, audit, webhook, model, image),
    *(snapshot, tool, hook),
):
    app.add_typer(noun.app, name=noun.__name__.rpartition(".")[2])
app.command("up")(up)
app.command("init")(init)
app.command("status")(status)
app.command("demo")(demo)
app.command("run")(run_task)
app.command("doctor")(doctor)
app.command("selfcheck")(selfcheck.verb)


@app.callback()
def start(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", help="handiwork.toml to use.", dir_okay=False)
    ] = None,
) -> None:
    """Prepare what every verb needs."""
    context.obj = Invocation(config)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        code = app(list(arguments), standalone_mode=False)
    except HandiworkError as error:
        return fail(error)
    except BaseExceptionGroup as group:
        return fail(_first(group))
    except typer.Abort:
        return EXIT_FAILED
    except typer.Exit as end:
        return int(end.exit_code)
    except Exception as error:
        if hasattr(error, "format_message"):
            return _usage(error.format_message())
        raise
    return code if isinstance(code, int) else EXIT_OK


def _usage(message: str) -> int:
    typer.echo(f"handiwork: {' '.join(message.split())}; see --help", err=True)
    return EXIT_USAGE


def _first(group: BaseExceptionGroup[BaseException]) -> Exception:
    """Return the first error of ours in a task group's failure; others are raised as they are."""
    ours = group.subgroup(HandiworkError)
    if ours is None:
        raise group
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else HandiworkError(str(error))

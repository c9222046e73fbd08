"""`handiwork model …`: the models that the local brain asks."""

import sys
from typing import Annotated

import msgspec
import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import say, show
from handiwork.model.errors import ConfigError
from handiwork.model.language_model import MAX_KEY_CHARS
from handiwork.model.wire import ModelBody

app = typer.Typer(help="Models that the local brain asks.", no_args_is_help=True)

_COLUMNS = ("name", "kind", "base_url", "model", "context_tokens", "source", "has_key")


@app.command()
def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What agents write as their model.")],
    kind: Annotated[str, typer.Option(help="Its wire format: anthropic or openai.")],
    base_url: Annotated[str, typer.Option(help="For openai it mostly ends in /v1.")],
    model: Annotated[str, typer.Option(help="Its provider's id; left out: the name.")] = "",
    tokens: Annotated[
        tuple[int, int], typer.Option(help="Its window and its longest answer, in tokens.")
    ] = (200_000, 8_192),
    key: Annotated[
        bool, typer.Option("--key", help="Read its key from standard input, or typed unseen.")
    ] = False,
) -> None:
    """Write a model; it can be asked at once, and replaces one of the same name."""
    given = {
        "kind": kind,
        "base_url": base_url,
        "model": model,
        "context_tokens": tokens[0],
        "max_output_tokens": tokens[1],
        "key": _key() if key else None,
    }
    try:
        body = msgspec.convert({k: v for k, v in given.items() if v is not None}, ModelBody)
    except msgspec.ValidationError as error:
        raise ConfigError(f"model {name!r}: {error}") from None
    invocation: Invocation = context.obj
    info = invocation.call(lambda client: client.models.put(name, body))
    held = "with a key" if info.has_key else "without a key"
    say(f"model {info.settings.name} at {info.settings.base_url}, {held}")


def _key() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("key", hide_input=True))
    given = sys.stdin.buffer.read(2 * MAX_KEY_CHARS).strip()
    if not given or not given.isascii():
        raise ConfigError("the key is empty or not ASCII: give it on standard input")
    return given.decode()


@app.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List models; there is no way to read a key."""
    invocation: Invocation = context.obj
    found = invocation.call(lambda client: client.models.list())
    rows = [
        {**msgspec.to_builtins(each.settings), "source": each.source, "has_key": each.has_key}
        for each in found
    ]
    show(rows, _COLUMNS, as_json=as_json)


@app.command()
def rm(context: typer.Context, name: str) -> None:
    """Forget a model and its key."""
    invocation: Invocation = context.obj
    invocation.call(lambda client: client.models.delete(name))

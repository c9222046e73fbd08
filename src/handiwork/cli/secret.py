"""`handiwork secret …`: values that only the proxy can open."""

import sys
from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import say, show
from handiwork.model.errors import ConfigError
from handiwork.model.secret import MAX_VALUE_CHARS

app = typer.Typer(help="Secrets that the proxy injects; write-only.", no_args_is_help=True)

MAX_INPUT_BYTES = 2 * MAX_VALUE_CHARS
"""More than any secret holds, so that what is too long is told as such."""


@app.command("set")
def set_(
    context: typer.Context,
    name: str,
    host: Annotated[list[str], typer.Option(help="Where it may be injected; may be repeated.")],
) -> None:
    """Seal a value read from standard input, or typed without echo."""
    value = _value()
    if not value:
        raise ConfigError("the secret is empty: give its value on standard input")
    invocation: Invocation = context.obj
    info = invocation.call(lambda client: client.secrets.put(name, value, hosts=host))
    say(f"secret {info.name} version {info.version} sealed for {', '.join(info.hosts)}")


def _value() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("value", hide_input=True))
    given = sys.stdin.buffer.read(MAX_INPUT_BYTES)
    if not given.isascii():
        raise ConfigError("the secret is not printable ASCII on one line")
    return given.decode().rstrip("\n")


@app.command("list")
def list_(context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    """List names, versions and hosts; there is no way to read a value."""
    invocation: Invocation = context.obj
    rows = invocation.call(lambda client: client.secrets.list())
    show(rows, ("name", "version", "hosts", "updated_at"), as_json=as_json)


@app.command()
def delete(context: typer.Context, name: str) -> None:
    """Delete a secret; rules that inject it refuse from now on."""
    invocation: Invocation = context.obj
    invocation.call(lambda client: client.secrets.delete(name))

"""`handiwork tool …`: the tools that agents may declare, and what they declare them with. Asks no control plane."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import typer

from handiwork.cli.output import say, show
from handiwork.model.errors import NotFoundError
from handiwork.tools import code
from handiwork.tools.code_calls import CALLS, NOT_FROM_CODE, session_tools
from handiwork.tools.registry import STOCK, Registry, Tool
from handiwork.tools.toolset import stock

app = typer.Typer(help="Tools that agents may declare.", no_args_is_help=True)

_LINE_CHARACTERS = 100


class _Row(msgspec.Struct, frozen=True):
    name: str
    kind: str
    description: str


@app.command("list")
def list_tools(
    *, as_json: Annotated[bool, typer.Option("--json", help="All of it, as JSON.")] = False
) -> None:
    """List them: the stock ones come with the toolset, the others each by its name."""
    rows = [_Row(one.name, _kind(one), _first_line(one.description)) for one in stock()]
    show(
        sorted(rows, key=lambda row: (row.kind, row.name)),
        ("name", "kind", "description"),
        as_json=as_json,
    )


@app.command("show")
def show_tools(
    names: Annotated[list[str], typer.Argument(help="Tools of one agent, all that it declares.")],
) -> None:
    """Print what an agent declares for these tools, a list for its `tools`.

    The description of `execute` then shows the model how code calls the others.
    """
    registry = stock()
    found = [_custom(registry, name) for name in dict.fromkeys(names)]
    say(msgspec.json.format(msgspec.json.encode(_declared(found)), indent=2).decode())


def _custom(registry: Registry, name: str) -> Tool:
    found = registry.get(name)
    if found is None or name in STOCK:
        known = ", ".join(sorted(one.name for one in registry if one.name not in STOCK))
        raise NotFoundError(f"there is no tool {name!r} that an agent declares; there are {known}")
    return found


def _declared(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    called = session_tools([one for one in tools if one.name not in NOT_FROM_CODE])
    shown = [one for one in called if one.name not in CALLS]
    return [
        {
            "type": "custom",
            "name": one.name,
            "description": code.described(shown) if one is code.execute else one.description,
            "input_schema": one.schema,
        }
        for one in tools
    ]


def _kind(one: Tool) -> str:
    return "stock" if one.name in STOCK else "custom"


def _first_line(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return line if len(line) <= _LINE_CHARACTERS else f"{line[: _LINE_CHARACTERS - 1]}…"

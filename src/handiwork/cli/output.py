"""How verbs speak: tables for people, `--json` for programs, one line for an error."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from handiwork.model.errors import ConfigError, HandiworkError, PolicyDeniedError, UnauthorizedError

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_DENIED = 0, 1, 2, 3

console = Console(highlight=False)


def show(rows: Sequence[Any], columns: Sequence[str], *, as_json: bool) -> None:
    """Print records (structs or mappings) as a table of the columns, or all of them as JSON."""
    plain = [msgspec.to_builtins(row) for row in rows]
    if as_json:
        print(json.dumps(plain, indent=2))
        return
    table = Table(*columns, box=None, header_style="bold", pad_edge=False)
    for row in plain:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    console.print(table)


def show_one(row: Any, *, as_json: bool) -> None:
    """Print one record."""
    plain: Mapping[str, Any] = msgspec.to_builtins(row)
    if as_json:
        print(json.dumps(plain, indent=2))
        return
    for key, value in plain.items():
        console.print(f"[bold]{key}[/bold]  ", _cell(value), markup=True, sep="")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value)
    return str(value)


def fail(error: Exception) -> int:
    """Print the one line of an error and return the exit code that tells its kind."""
    print(f"handiwork: {error}", file=sys.stderr)
    if isinstance(error, ConfigError | UnauthorizedError):
        return EXIT_USAGE
    if isinstance(error, PolicyDeniedError):
        return EXIT_DENIED
    if isinstance(error, HandiworkError):
        return EXIT_FAILED
    raise error

"""How verbs speak: tables for people, `--json` for programs, one line for an error.

Names, paths and outputs come from brains and guests: none of them may steer the terminal.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from handiwork.model.errors import (
    ConfigError,
    HandiworkError,
    NotFoundError,
    PolicyDeniedError,
    SecretMissingError,
    UnauthorizedError,
    UnsupportedError,
)

EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_DENIED = 0, 1, 2, 3
USAGE_ERRORS = (
    ConfigError,
    NotFoundError,
    SecretMissingError,
    UnauthorizedError,
    UnsupportedError,
)
"""What was typed, or what the settings say, cannot be had: exit code 2."""
WIDE_CHARACTERS = 10_000

console = Console(highlight=False, emoji=False, markup=False, soft_wrap=True)
"""Prints text as it is, and lets the terminal wrap it: a path or an id stays in one piece."""


def plain(text: str) -> str:
    """Return the text with each character that could steer a terminal (or hide) replaced."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def say(text: str, style: str = "") -> None:
    """Print one text of whatever origin."""
    console.print(plain(text), style=style or None)


def warn(text: str) -> None:
    """Print one line on standard error: what is done, but not as somebody may expect."""
    print(f"handiwork: {plain(' '.join(text.split()))}", file=sys.stderr)


def marked(ok: bool, text: str, style: str = "red") -> None:
    """Print a text behind a green tick, or behind a cross of the style."""
    mark = Text("✓ ", "green") if ok else Text("✗ ", style)
    console.print(mark + Text(plain(text)))


def show(rows: Sequence[Any], columns: Sequence[str], *, as_json: bool) -> None:
    """Print records (structs or mappings) as a table of the columns, or all of them as JSON."""
    records = [msgspec.to_builtins(row) for row in rows]
    if as_json:
        print(json.dumps(records, indent=2))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for record in records:
        table.add_row(*(Text(_cell(record.get(column))) for column in columns))
    # Only a person's terminal has a width; a program that reads the table gets it uncut.
    wide = console if console.is_terminal else Console(width=WIDE_CHARACTERS)
    wide.print(table, soft_wrap=False)


def show_one(row: Any, *, as_json: bool) -> None:
    """Print one record."""
    record: Mapping[str, Any] = msgspec.to_builtins(row)
    if as_json:
        print(json.dumps(record, indent=2))
        return
    for key, value in record.items():
        console.print(Text(f"{key}  ", "bold") + Text(_cell(value)))


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return plain(", ".join(str(v) for v in value))
    return plain(str(value))


def fail(error: Exception) -> int:
    """Print the one line of an error and return the exit code that tells its kind."""
    if not isinstance(error, HandiworkError):
        raise error
    print(f"handiwork: {plain(' '.join(str(error).split()))}", file=sys.stderr)
    if isinstance(error, USAGE_ERRORS):
        return EXIT_USAGE
    return EXIT_DENIED if isinstance(error, PolicyDeniedError) else EXIT_FAILED

"""How the demo speaks: a line for each step with its time, and a table at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

SHOWN_CHARACTERS = 160


class Narrator:
    """Tells the story on a console and keeps the times."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._times: list[tuple[str, float]] = []

    def say(self, text: str) -> None:
        """Tell something that is not a step."""
        self._console.print(text, style="italic", markup=False)

    def call(self, tool: str, argument: str) -> None:
        """Show a tool call of the agent."""
        line = " ".join(argument.split())[:SHOWN_CHARACTERS]
        self._console.print(f"  → {tool:<5} {line}", style="cyan", markup=False)

    def answer(self, text: str, *, is_error: bool) -> None:
        """Show what a tool call gave: its last lines."""
        lines = [line for line in text.strip().splitlines() if line.strip()][-3:]
        for line in lines:
            self._console.print(
                f"          {line[:SHOWN_CHARACTERS]}",
                style="red" if is_error else "dim",
                markup=False,
            )

    def message(self, text: str) -> None:
        """Show what the agent says."""
        self._console.print(f"  agent: {text}", style="bold", markup=False)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Time a step and tell it when it is done; a failure tells nothing."""
        started = time.perf_counter()
        yield
        seconds = time.perf_counter() - started
        self._times.append((text, seconds))
        self._console.print(f"[green]✓[/green] {text}  [dim]{seconds:.2f} s[/dim]")

    def summary(self) -> None:
        """Print every step with its time, and where to look next."""
        table = Table("step", "seconds", box=None, header_style="bold", title="What was shown")
        for text, seconds in self._times:
            table.add_row(text, f"{seconds:.2f}")
        table.add_row("[bold]all[/bold]", f"{sum(seconds for _, seconds in self._times):.2f}")
        self._console.print(table)
        self._console.print(
            "Next: `handiwork doctor` on this host, `handiwork up` to serve,"
            " docs/guides for policy, secrets, sessions and the API."
        )

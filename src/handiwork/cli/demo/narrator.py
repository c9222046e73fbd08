"""How the demo speaks: a line for each step with its time, and a table at the end."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text

from handiwork.cli.output import plain

SHOWN_CHARACTERS = 160
SHOWN_LINES = 3


class Narrator:
    """Tells the story on a console and keeps the times."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._times: list[tuple[str, float]] = []
        self.failed = ""
        """The first step that did not come to its end."""

    def say(self, text: str) -> None:
        """Tell something that is not a step."""
        self._print(text, "italic")

    def call(self, tool: str, argument: str) -> None:
        """Show a tool call of the agent."""
        line = " ".join(argument.split())[:SHOWN_CHARACTERS]
        self._print(f"  → {tool:<5} {line}", "cyan")

    def answer(self, text: str, *, is_error: bool) -> None:
        """Show what a tool call gave: its last lines."""
        lines = [line for line in text.strip().splitlines() if line.strip()]
        for line in lines[-SHOWN_LINES:]:
            self._print(f"          {line[:SHOWN_CHARACTERS]}", "red" if is_error else "dim")

    def message(self, text: str) -> None:
        """Show what the agent says."""
        self._print(f"  agent: {text}", "bold")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Time a step and tell it when it is done, or that it failed."""
        started = time.perf_counter()
        try:
            yield
        except BaseException:
            self.failed = self.failed or text
            self._console.print(Text.assemble(("✗", "red"), " ", text))
            raise
        seconds = time.perf_counter() - started
        self._times.append((text, seconds))
        self._console.print(
            Text.assemble(("✓", "green"), " ", text, "  ", (f"{seconds:.2f} s", "dim"))
        )

    def summary(self) -> None:
        """Print every step with its time, and where to look next."""
        table = Table("step", "seconds", box=None, header_style="bold", title="What was shown")
        for text, seconds in self._times:
            table.add_row(text, f"{seconds:.2f}")
        table.add_row(Text("all", "bold"), f"{sum(seconds for _, seconds in self._times):.2f}")
        self._console.print(table, soft_wrap=False)
        self._print(
            "Next: `handiwork doctor` on this host, `handiwork up` to serve,"
            " docs/guides for policy, secrets, sessions and the API."
        )

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(plain(text), style=style or None, markup=False)

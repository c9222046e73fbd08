"""`handiwork doctor`: what works on this host, proven by doing it."""

import asyncio
from typing import Annotated

import typer

from handiwork.cli.output import EXIT_FAILED, show


def doctor(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json")] = False
) -> None:
    """Probe the host and its tiers; exit code 1 when the tier of the settings does not work here."""
    # Imported here: loading every adapter takes longer than most verbs do.
    from handiwork.cli import host_report

    report = asyncio.run(host_report.examine(context.obj.settings))
    if as_json:
        show([report], (), as_json=True)
    else:
        host_report.print_report(report)
    if not report.healthy:
        raise typer.Exit(EXIT_FAILED)

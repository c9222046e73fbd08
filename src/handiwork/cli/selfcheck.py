"""`handiwork selfcheck`: the contract suite of every tier, made on this host."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import EXIT_FAILED, show
from handiwork.model.errors import ConfigError
from handiwork.model.sandbox import TIERS

ALL = "all"


def verb(
    context: typer.Context,
    tier: Annotated[str, typer.Option(help="Tier to check, or 'all'.")] = "namespace",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Make every check of the sandbox contract on this host; exit code 1 unless all of them hold."""
    # Imported here: loading every adapter takes longer than most verbs do.
    from handiwork.cli.tier_report import checked, print_report

    invocation: Invocation = context.obj
    reports = []
    for one in _tiers(tier):
        reports.append(asyncio.run(checked(one, invocation.settings)))
        if not as_json:
            print_report(reports[-1])
    if as_json:
        show(reports, (), as_json=True)
    if not all(report.passed for report in reports):
        raise typer.Exit(EXIT_FAILED)


def _tiers(asked: str) -> Sequence[str]:
    from handiwork.cli.tier_report import MACHINES
    from handiwork.tiers import TIER_DRIVERS

    if asked == ALL:
        return (*TIER_DRIVERS, MACHINES)
    if asked not in TIERS:
        raise ConfigError(
            f"--tier {asked[:40]!r} is no tier; use {ALL} or one of {', '.join(TIERS)}"
        )
    return (asked,)

"""`handiwork selfcheck`: the contract suite of every tier, made on this host."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from handiwork.cli.invocation import Invocation
from handiwork.cli.output import EXIT_FAILED, marked, say, show
from handiwork.config import Settings
from handiwork.model.errors import ConfigError, HandiworkError
from handiwork.model.sandbox import TIERS
from handiwork.sandboxes.selfcheck import Check, selfcheck
from handiwork.sandboxes.trees import remove_tree

ALL = "all"
UNMADE = "no checks are made of it here; `handiwork doctor` tells whether it runs a sandbox"


class TierReport(msgspec.Struct, frozen=True, kw_only=True):
    """One tier: its checks, or why none could be made."""

    tier: str
    checks: list[Check] = []
    missing: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check was made and held."""
        return bool(self.checks) and all(check.ok for check in self.checks)


def verb(
    context: typer.Context,
    tier: Annotated[str, typer.Option(help="Tier to check, or 'all'.")] = "namespace",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Make every check of the sandbox contract on this host; exit code 1 unless all of them hold."""
    invocation: Invocation = context.obj
    reports = asyncio.run(_check_all(_tiers(tier), invocation.settings))
    if as_json:
        show(reports, (), as_json=True)
    else:
        for report in reports:
            _print(report)
    if not all(report.passed for report in reports):
        raise typer.Exit(EXIT_FAILED)


def _tiers(asked: str) -> Sequence[str]:
    # Imported here: loading every adapter takes longer than most verbs do.
    from handiwork.tiers import TIER_DRIVERS

    if asked == ALL:
        return tuple(TIER_DRIVERS)
    if asked not in TIERS:
        raise ConfigError(
            f"--tier {asked[:40]!r} is no tier; use {ALL} or one of {', '.join(TIERS)}"
        )
    return (asked,)


async def _check_all(tiers: Sequence[str], settings: Settings) -> list[TierReport]:
    return [await _check(tier, settings) for tier in tiers]


async def _check(tier: str, settings: Settings) -> TierReport:
    from handiwork.app import now
    from handiwork.tiers import TIER_DRIVERS

    make = TIER_DRIVERS.get(tier)
    if make is None:
        return TierReport(tier=tier, missing=UNMADE)
    directory = Path(tempfile.mkdtemp(prefix="handiwork-selfcheck-"))
    try:
        driver = make(directory, settings, now)
        return TierReport(tier=tier, checks=[check async for check in selfcheck(driver)])
    except HandiworkError as error:
        return TierReport(tier=tier, missing=str(error))
    finally:
        await asyncio.to_thread(remove_tree, directory)


def _print(report: TierReport) -> None:
    for check in report.checks:
        marked(check.ok, f"{check.area:<9} {check.name}{'' if check.ok else f': {check.detail}'}")
    if report.missing:
        marked(False, f"{report.tier} tier: {report.missing}")
        return
    passed = sum(check.ok for check in report.checks)
    say(f"{report.tier} tier: {passed} of {len(report.checks)} checks passed")

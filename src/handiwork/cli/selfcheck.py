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
from handiwork.model.errors import ConfigError, HandiworkError, UnsupportedError
from handiwork.model.sandbox import TIERS
from handiwork.sandboxes.protocol import Driver
from handiwork.sandboxes.selfcheck import Check, selfcheck, summary
from handiwork.sandboxes.trees import remove_tree

ALL = "all"
MACHINES = "microvm"
UNMADE = "no checks are made of it: there is no driver for it yet"


class TierReport(msgspec.Struct, frozen=True, kw_only=True):
    """One tier: its checks, or why none could be made; `note` says what they do not prove."""

    tier: str
    checks: list[Check] = []
    missing: str = ""
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether every check was made, and held but for what the tier may lack."""
        return bool(self.checks) and all(check.ok for check in self.checks)


def verb(
    context: typer.Context,
    tier: Annotated[str, typer.Option(help="Tier to check, or 'all'.")] = "namespace",
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Make every check of the sandbox contract on this host; exit code 1 unless all of them hold."""
    invocation: Invocation = context.obj
    reports = []
    for one in _tiers(tier):
        reports.append(asyncio.run(_check(one, invocation.settings)))
        if not as_json:
            _print(reports[-1])
    if as_json:
        show(reports, (), as_json=True)
    if not all(report.passed for report in reports):
        raise typer.Exit(EXIT_FAILED)


def _tiers(asked: str) -> Sequence[str]:
    # Imported here: loading every adapter takes longer than most verbs do.
    from handiwork.tiers import TIER_DRIVERS

    if asked == ALL:
        return (*TIER_DRIVERS, MACHINES)
    if asked not in TIERS:
        raise ConfigError(
            f"--tier {asked[:40]!r} is no tier; use {ALL} or one of {', '.join(TIERS)}"
        )
    return (asked,)


async def _check(tier: str, settings: Settings) -> TierReport:
    directory = Path(tempfile.mkdtemp(prefix="handiwork-selfcheck-"))
    try:
        driver, note = await _driver(tier, directory, settings)
        checks = [check async for check in selfcheck(driver)]
        return TierReport(tier=tier, checks=checks, note=note)
    except HandiworkError as error:
        return TierReport(tier=tier, missing=str(error))
    finally:
        await asyncio.to_thread(remove_tree, directory)


async def _driver(tier: str, directory: Path, settings: Settings) -> tuple[Driver, str]:
    """Return the driver to check, and what the checks will not prove."""
    from handiwork.app import now
    from handiwork.tiers import TIER_DRIVERS, checked_microvm

    if tier == MACHINES:
        found = await checked_microvm(directory, settings, clock=now)
        return found.driver, found.note
    if tier not in TIER_DRIVERS:
        raise UnsupportedError(UNMADE)
    return TIER_DRIVERS[tier](directory, settings, now), ""


def _print(report: TierReport) -> None:
    for check in report.checks:
        _print_check(check)
    if report.note:
        say(f"{report.tier} tier: {report.note}")
    if report.missing:
        marked(False, f"{report.tier} tier: {report.missing}")
        return
    say(f"{report.tier} tier: {summary(report.checks)}")


def _print_check(check: Check) -> None:
    told = f"{check.area:<9} {check.name}"
    if check.lacks:
        marked(False, f"{told} (not on this tier): {check.lacks}", "yellow")
    else:
        marked(check.ok, f"{told}{'' if check.ok else f': {check.detail}'}")

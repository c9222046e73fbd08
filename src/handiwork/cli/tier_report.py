"""What `handiwork selfcheck` finds out about one tier, and how it is told."""

import asyncio
import tempfile
from pathlib import Path

import msgspec

from handiwork.app import now
from handiwork.cli.output import marked, say
from handiwork.config import Settings
from handiwork.model.errors import HandiworkError, UnsupportedError
from handiwork.sandboxes.protocol import Driver
from handiwork.sandboxes.selfcheck import Check, selfcheck, summary
from handiwork.sandboxes.trees import remove_tree
from handiwork.tiers import TIER_DRIVERS, checked_microvm

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


async def checked(tier: str, settings: Settings) -> TierReport:
    """Make every check of a tier, on a directory of its own that is gone at the end."""
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
    if tier == MACHINES:
        found = await checked_microvm(directory, settings, clock=now)
        return found.driver, found.note
    if tier not in TIER_DRIVERS:
        raise UnsupportedError(UNMADE)
    return TIER_DRIVERS[tier](directory, settings, now), ""


def print_report(report: TierReport) -> None:
    """Tell one tier's checks, a line each, and what they come to."""
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

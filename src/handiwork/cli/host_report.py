"""What `handiwork doctor` finds out about this host, and how it is told."""

import asyncio
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from handiwork.app import now
from handiwork.cli.output import marked, say
from handiwork.config import Settings
from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.probe import Finding, probe
from handiwork.sandboxes.selfcheck import Check, selfcheck, summary
from handiwork.sandboxes.trees import remove_tree
from handiwork.tiers import GUEST_AGENT, TIER_DRIVERS, examine_microvm, make_driver


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that doctor found."""

    findings: list[Finding]
    tiers: list[Finding] = []
    protections: Mapping[str, bool]
    checks: list[Check]

    @property
    def healthy(self) -> bool:
        """Whether the namespace tier works here."""
        return bool(self.checks) and all(check.ok for check in self.checks)


async def examine(settings: Settings) -> Report:
    """Probe the host, have every tier say hello, check the default one by the whole suite."""
    findings = await probe(GUEST_AGENT)
    directory = Path(tempfile.mkdtemp(prefix="handiwork-doctor-"))
    driver = make_driver(directory, clock=now)
    try:
        # A host that lacks what every sandbox needs fails the first check; the rest would repeat it.
        broken = any(not f.ok and f.name in {"userns", "pidns", "overlay"} for f in findings)
        checks = [] if broken else [check async for check in selfcheck(driver)]
        tiers = [await hello(tier, settings) for tier in TIER_DRIVERS if tier != driver.tier]
        tiers.append((await examine_microvm(settings, clock=now)).finding)
        return Report(
            findings=findings, tiers=tiers, protections=driver.protections(), checks=checks
        )
    finally:
        remove_tree(directory)


async def hello(tier: str, settings: Settings) -> Finding:
    """Make a sandbox of a tier, run one command in it and end it; the finding says why not."""
    directory = Path(tempfile.mkdtemp(prefix="handiwork-doctor-"))
    spec = SandboxSpec(id="sbx_doctorhello")
    try:
        driver = TIER_DRIVERS[tier](directory, settings, now)
        box = await driver.create(spec)
        try:
            await box.exec(ExecRequest(argv=("true",), cwd="/"))
        finally:
            await driver.destroy(spec.id)
    except HandiworkError as error:
        return Finding(name=tier, ok=False, detail=str(error))
    finally:
        await asyncio.to_thread(remove_tree, directory)
    return Finding(name=tier, ok=True, detail="runs a sandbox; `handiwork selfcheck` proves more")


def print_report(report: Report) -> None:
    """Tell it, a line for each finding."""
    for finding in [*report.findings, *report.tiers]:
        marked(finding.ok, f"{finding.name:<12} {finding.detail}")
        if finding.fix:
            say(f"               to fix it: {finding.fix}")
    for name, holds in report.protections.items():
        text = f"protection   {name}" + ("" if holds else " (not on this host)")
        marked(holds, text, "yellow")
    for check in report.checks:
        if not check.ok:
            marked(False, f"self-check   {check.name}: {check.detail}")
    say(f"namespace tier: {summary(report.checks)}")

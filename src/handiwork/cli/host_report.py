"""What `handiwork doctor` finds out about this host, and how it is told."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from handiwork.app import now
from handiwork.cli.output import marked, say
from handiwork.config import Settings
from handiwork.sandboxes.probe import Finding, probe, probe_groups
from handiwork.sandboxes.selfcheck import Check, selfcheck, summary
from handiwork.sandboxes.trees import remove_tree
from handiwork.tiers import (
    GUEST_AGENT,
    examine_gvisor,
    examine_isolate,
    examine_microvm,
    make_driver,
)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that doctor found."""

    findings: list[Finding]
    tiers: list[Finding]
    protections: Mapping[str, bool]
    checks: list[Check]
    tier: str = "namespace"
    """That of the settings."""

    @property
    def healthy(self) -> bool:
        """Whether the tier of the settings works here."""
        return any(one.ok for one in self.tiers if one.name == self.tier)


async def examine(settings: Settings) -> Report:
    """Probe the host, make a sandbox of every tier, check the namespace tier by the whole suite."""
    findings = [*await probe(GUEST_AGENT), await probe_groups()]
    directory = Path(tempfile.mkdtemp(prefix="handiwork-doctor-"))
    driver = make_driver(directory, clock=now)
    try:
        # A host that lacks what every sandbox needs fails the first check; the rest would repeat it.
        broken = any(not f.ok and f.name in {"userns", "pidns", "overlay"} for f in findings)
        checks = [] if broken else [check async for check in selfcheck(driver)]
        tiers = [
            found_by(checks),
            await examine_gvisor(settings, clock=now),
            (await examine_microvm(settings, clock=now)).finding,
            await examine_isolate(settings),
        ]
        return Report(
            findings=findings,
            tiers=tiers,
            protections=driver.protections(),
            checks=checks,
            tier=settings.sandbox.tier,
        )
    finally:
        remove_tree(directory)


def found_by(checks: list[Check]) -> Finding:
    """Return what the checks of the namespace tier come to; without any it lacks what is told above."""
    ok = bool(checks) and all(check.ok for check in checks)
    fix = "" if ok else "mend what failed above; `handiwork selfcheck` checks again"
    detail = summary(checks) if checks else "its sandboxes cannot be made here"
    return Finding(name="namespace", ok=ok, detail=detail, fix=fix)


def print_report(report: Report) -> None:
    """Tell it, a line for each finding."""
    for finding in report.findings:
        _print(finding)
    for name, holds in report.protections.items():
        text = f"protection   {name}" + ("" if holds else " (not on this host)")
        marked(holds, text, "yellow")
    for check in report.checks:
        if not check.ok:
            marked(False, f"self-check   {check.name}: {check.detail}")
    for finding in report.tiers:
        _print(finding, " tier")


def _print(finding: Finding, kind: str = "") -> None:
    marked(finding.ok, f"{finding.name + kind:<12} {finding.detail}")
    if finding.fix:
        say(f"               to fix it: {finding.fix}")

"""What doctor tells and how it ends; `tests/integration/test_cli.py` runs it for real."""

import json

import pytest

from handiwork.cli import host_report
from handiwork.cli.host_report import Report
from handiwork.sandboxes.probe import Finding
from handiwork.sandboxes.selfcheck import Check

WORKS = Finding(name="userns", ok=True, detail="works")
RUNS = Finding(name="gvisor", ok=True, detail="runs a sandbox")
LACKS = Finding(name="idmap", ok=False, detail="[no] such call", fix="use Linux 5.19 or later")
PASSED = Check(name="exec", area="command", ok=True)
FAILED = Check(name="network", area="isolation", ok=False, detail="eth0 is there")


def report(
    *checks: Check, findings: tuple[Finding, ...] = (WORKS,), tier: str = "namespace"
) -> Report:
    return Report(
        findings=list(findings),
        tiers=[host_report.found_by([*checks]), RUNS],
        protections={"seccomp": True, "cgroups": False},
        checks=[*checks],
        tier=tier,
    )


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch):
    def give(report: Report) -> None:
        async def examine(settings) -> Report:
            return report

        monkeypatch.setattr(host_report, "examine", examine)

    return give


@pytest.mark.parametrize(
    ("checks", "healthy"),
    [((PASSED,), True), ((PASSED, FAILED), False), ((), False)],
)
def test_only_proof_is_health(checks: tuple[Check, ...], healthy: bool, found, handiwork) -> None:
    assert report(*checks).healthy is healthy
    found(report(*checks))
    assert handiwork("doctor").code == (0 if healthy else 1)


@pytest.mark.parametrize(("tier", "healthy"), [("gvisor", True), ("microvm", False)])
def test_health_is_that_of_the_tier_of_the_settings(
    tier: str, healthy: bool, found, handiwork
) -> None:
    found(report(FAILED, tier=tier))
    assert handiwork("doctor").code == (0 if healthy else 1)


def test_what_people_read(found, handiwork) -> None:
    found(report(PASSED, FAILED, findings=(WORKS, LACKS)))
    assert handiwork("doctor").out.splitlines() == [
        "✓ userns       works",
        "✗ idmap        [no] such call",
        "               to fix it: use Linux 5.19 or later",
        "✓ protection   seccomp",
        "✗ protection   cgroups (not on this host)",
        "✗ self-check   network: eth0 is there",
        "✗ namespace tier 1 of 2 checks passed",
        "               to fix it: mend what failed above; `handiwork selfcheck` checks again",
        "✓ gvisor tier  runs a sandbox",
    ]


def test_what_the_tier_may_lack_is_counted_apart(found, handiwork) -> None:
    lacking = Check(name="memory", area="life", ok=True, lacks="processes end")
    found(report(PASSED, lacking))
    told = handiwork("doctor")
    assert told.code == 0
    line = "✓ namespace tier 1 of 2 checks passed, 1 of what the tier may lack"
    assert line in told.out.splitlines()


def test_what_programs_read(found, handiwork) -> None:
    found(report(PASSED))
    (told,) = json.loads(handiwork("doctor", "--json").out)
    assert told["protections"] == {"seccomp": True, "cgroups": False}
    assert told["checks"][0]["name"] == "exec"
    assert [(one["name"], one["ok"]) for one in told["tiers"]] == [
        ("namespace", True),
        ("gvisor", True),
    ]

"""What the checks of the namespace tier come to."""

import pytest

from handiwork.cli import host_report
from handiwork.sandboxes.selfcheck import Check

PASSED = Check(name="exec", area="command", ok=True)
FAILED = Check(name="network", area="isolation", ok=False, detail="eth0 is there")


@pytest.mark.parametrize(
    ("checks", "ok", "told"),
    [
        ([PASSED, PASSED], True, "2 of 2 checks passed"),
        ([PASSED, FAILED], False, "1 of 2 checks passed"),
        ([], False, "its sandboxes cannot be made here"),
    ],
)
def test_only_proof_is_a_tier(checks: list[Check], ok: bool, told: str) -> None:
    found = host_report.found_by(checks)
    assert (found.name, found.ok, found.detail) == ("namespace", ok, told)
    assert bool(found.fix) is not ok

"""One tier's report: when it is a proof."""

from handiwork.cli.tier_report import TierReport
from handiwork.sandboxes.selfcheck import Check

PASSED = Check(name="exec", area="command", ok=True)
FAILED = Check(name="network", area="isolation", ok=False, detail="eth0 is there")


def test_no_check_is_no_proof() -> None:
    assert [TierReport(tier="x", checks=c).passed for c in ([], [PASSED], [PASSED, FAILED])] == [
        *(False, True, False)
    ]

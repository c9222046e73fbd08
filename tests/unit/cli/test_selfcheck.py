"""What selfcheck tells and how it ends; the suite itself runs in tests/contract."""

import json

import pytest

from handiwork import tiers
from handiwork.cli import tier_report
from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.selfcheck import Check
from handiwork.testing.sandbox import FakeDriver

PASSED = Check(name="exec", area="command", ok=True)
FAILED = Check(name="network", area="isolation", ok=False, detail="eth0 is there")
LACKING = Check(name="memory", area="life", ok=True, lacks="processes end")


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch):
    def absent(_directory, _settings, _clock):
        raise UnsupportedError("no runsc: install it")

    async def emulated(_directory, _settings, *, clock):
        return tiers.Checkable(driver=FakeDriver(), note="emulated")

    monkeypatch.setattr(tier_report, "checked_microvm", emulated)
    makers = {"namespace": lambda _directory, _settings, _clock: FakeDriver(), "gvisor": absent}
    for module in (tiers, tier_report):
        monkeypatch.setattr(module, "TIER_DRIVERS", makers)


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch):
    def give(*checks: Check) -> None:
        async def made(_driver):
            for check in checks:
                yield check

        monkeypatch.setattr(tier_report, "selfcheck", made)

    return give


def test_all_that_holds_is_told(drivers, suite, handiwork) -> None:
    suite(PASSED)
    told = handiwork("selfcheck")
    assert told.code == 0
    assert told.out.splitlines() == ["✓ command   exec", "namespace tier: 1 of 1 checks passed"]


def test_what_a_tier_may_lack_is_told_and_does_not_fail(drivers, suite, handiwork) -> None:
    suite(PASSED, LACKING)
    told = handiwork("selfcheck")
    assert told.code == 0
    assert told.out.splitlines()[1:] == [
        "✗ life      memory (not on this tier): processes end",
        "namespace tier: 1 of 2 checks passed, 1 of what the tier may lack",
    ]


def test_all_is_every_tier_that_has_a_driver(drivers, suite, handiwork) -> None:
    suite(PASSED)
    told = json.loads(handiwork("selfcheck", "--tier", "all", "--json").out)
    assert [(one["tier"], one["note"]) for one in told] == [
        *(("namespace", ""), ("gvisor", ""), ("microvm", "emulated"))
    ]


def test_what_does_not_hold_fails(drivers, suite, handiwork) -> None:
    suite(PASSED, FAILED)
    told = handiwork("selfcheck", "--json")
    assert told.code == 1
    (report,) = json.loads(told.out)
    assert [check["ok"] for check in report["checks"]] == [True, False]


def test_a_tier_that_is_not_here_fails_with_the_reason(drivers, suite, handiwork) -> None:
    suite(PASSED)
    told = handiwork("selfcheck", "--tier", "all")
    assert told.code == 1
    assert "gvisor tier: no runsc: install it" in told.out


def test_a_tier_without_a_driver_fails_by_name(drivers, handiwork) -> None:
    told = handiwork("selfcheck", "--tier", "isolate")
    assert told.code == 1
    assert "isolate tier: no checks are made of it" in told.out


def test_what_is_no_tier_is_refused(drivers, handiwork) -> None:
    assert handiwork("selfcheck", "--tier", "chroot").code == 2

"""What is found out about a host, where a tier is here and where it is not."""

import pytest

from handiwork.cli import host_report
from handiwork.config import Settings
from handiwork.model.errors import UnsupportedError
from handiwork.testing.sandbox import FakeDriver


async def test_a_tier_says_hello_or_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_directory, _settings, _clock):
        raise UnsupportedError("no runsc: install it")

    def fake(_directory, _settings, _clock):
        return FakeDriver()

    monkeypatch.setattr(host_report, "TIER_DRIVERS", {"namespace": fake, "gvisor": absent})
    told = [await host_report.hello(tier, Settings()) for tier in ("namespace", "gvisor")]
    assert [(one.name, one.ok) for one in told] == [("namespace", True), ("gvisor", False)]
    assert told[1].detail == "no runsc: install it"

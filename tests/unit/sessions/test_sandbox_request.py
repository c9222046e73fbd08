"""The record that a new sandbox begins with: what was asked for, the operator's default elsewhere."""

from datetime import UTC, datetime

from handiwork.config import SandboxSettings
from handiwork.model.sandbox import SandboxState
from handiwork.sessions.sandbox_request import SandboxRequest, recorded

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = SandboxSettings(tier="gvisor", image="big")


def test_what_is_not_asked_for_is_the_operators():
    record = recorded(SandboxRequest(env={"A": "1"}), SETTINGS, NOW)
    assert (record.tier, record.image, record.env) == ("gvisor", "big", {"A": "1"})
    assert (record.state, record.created_at, record.origin) == (SandboxState.STARTING, NOW, "")


def test_what_is_asked_for_is_taken_and_each_has_an_id_of_its_own():
    asked = SandboxRequest(tier="microvm", image="small", session_id="sesn_1")
    one, two = (recorded(asked, SETTINGS, NOW, "sbx_1/3") for _ in range(2))
    assert (one.tier, one.image, one.session_id, one.origin) == (
        "microvm",
        "small",
        "sesn_1",
        "sbx_1/3",
    )
    assert one.id != two.id

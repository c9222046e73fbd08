"""What is kept of a lease."""

from datetime import UTC, datetime, timedelta

from handiwork.model.environment import KeptLease
from handiwork.model.session import WorkItem

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def test_a_lease_lapses_a_ttl_after_its_last_beat_and_shows_no_secret() -> None:
    work = WorkItem(
        id="work_1", environment_id="e", kind="session", session_id="s", secret="very-secret"
    )
    kept = KeptLease(work=work, last_heartbeat="t", ttl_seconds=1.5, beaten_at=NOW)
    assert kept.lapses_at == NOW + timedelta(seconds=1.5)
    assert "very-secret" not in repr(kept)

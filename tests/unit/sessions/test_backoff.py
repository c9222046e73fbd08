"""The pause of a session that failed: it doubles, is bounded and is forgotten."""

import pytest

from handiwork.sessions import backoff
from handiwork.sessions.backoff import FORGET_SECONDS, LONGEST_SECONDS, BackOff


def test_the_pause_doubles_up_to_the_longest() -> None:
    one, now, pauses = BackOff(), 1000.0, []
    for _ in range(40):
        one.failed("a", "odd", now)
        failure = one.of("a", now)
        assert failure is not None
        pauses.append(failure.until - now)
        now = failure.until
    assert pauses[:4] == [1, 2, 4, 8]
    assert set(pauses[9:]) == {LONGEST_SECONDS}


def test_it_is_over_with_its_time_and_says_why_until_then() -> None:
    one = BackOff()
    one.failed("a", "no room", 10)
    one.failed("a", "no disk", 11)
    told = str(one.of("a", 12.9))
    assert "2 times" in told
    assert "2 s after" in told
    assert told.endswith("no disk")
    assert one.of("a", 13) is None
    assert one.of("b", 11) is None


@pytest.mark.parametrize("rests", [True, False])
def test_a_rest_or_a_long_time_without_failure_begins_anew(*, rests: bool) -> None:
    one = BackOff()
    for at in range(5):
        one.failed("a", "odd", at)
    if rests:
        one.rested("a")
    now = 5.0 if rests else 4 + FORGET_SECONDS
    one.failed("a", "odd", now)
    failure = one.of("a", now)
    assert failure is not None
    assert failure.count == 1


def test_only_those_that_failed_last_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "MAX_SESSIONS", 2)
    one = BackOff()
    for name in ("a", "b", "a", "c"):
        one.failed(name, "odd", 1)
    assert [one.of(name, 1) is not None for name in "abc"] == [True, False, True]

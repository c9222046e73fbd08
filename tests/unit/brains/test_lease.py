"""A lease by its rules, with time as an argument."""

import pytest

from handiwork.brains.lease import NO_HEARTBEAT, Beat, Held, Lease


def beat(last: str = "t1", *, state: str = "active", extended: bool = True, ttl: float = 300):
    return Beat(last_heartbeat=last, lease_extended=extended, state=state, ttl_seconds=ttl)


def test_the_first_beat_claims_and_the_next_echo() -> None:
    lease = Lease(0)
    assert lease.expected == NO_HEARTBEAT
    lease.beaten(beat("2026-11-21T01:40:50.986762+00:00"), 1)
    assert lease.expected == "2026-11-21T01:40:50.986762+00:00"
    assert lease.state is Held.OURS


@pytest.mark.parametrize(("ttl", "interval"), [(300, 30), (20, 10), (1, 0.5), (0.1, 0.3), (0, 30)])
def test_the_interval_is_half_the_lease_within_bounds(ttl: float, interval: float) -> None:
    lease = Lease(0)
    lease.beaten(beat(ttl=ttl), 0)
    assert lease.interval_seconds == interval


@pytest.mark.parametrize(
    "answer", [beat(state="stopping"), beat(state="stopped"), beat(extended=False)]
)
def test_the_brain_may_ask_to_stop(answer: Beat) -> None:
    lease = Lease(0)
    lease.beaten(answer, 0)
    assert lease.state is Held.STOPPING


def test_silence_for_a_whole_lease_loses_it() -> None:
    lease = Lease(0)
    lease.beaten(beat(ttl=20), 100)
    lease.silent(119)
    assert lease.state is Held.OURS
    lease.silent(120)
    assert lease.state is Held.LOST


def test_a_success_between_failures_starts_the_count_anew() -> None:
    lease = Lease(0)
    lease.beaten(beat(ttl=20), 0)
    lease.silent(19)
    lease.beaten(beat("t2", ttl=20), 19)
    lease.silent(38)
    assert lease.state is Held.OURS


def test_somebody_else_holds_it() -> None:
    lease = Lease(0)
    lease.mismatched()
    assert lease.state is Held.LOST


def test_a_lease_that_is_resumed_expects_the_kept_beat_and_runs_from_it() -> None:
    lease = Lease.resumed("2026-11-21T01:40:50.9+05:30", 60, age_seconds=20, now=1000)
    assert lease.expected == "2026-11-21T01:40:50.9+05:30"
    lease.silent(1039)
    assert lease.state is Held.OURS
    lease.silent(1040)
    assert lease.state is Held.LOST


def test_a_clock_that_went_back_makes_a_lease_no_longer_than_it_is() -> None:
    lease = Lease.resumed("t", 60, age_seconds=-500, now=1000)
    lease.silent(1060)
    assert lease.state is Held.LOST


def test_a_lease_runs_from_when_the_beat_was_sent() -> None:
    lease = Lease(0)
    lease.beaten(beat(ttl=20), sent_at=0)
    lease.silent(20)
    assert lease.state is Held.LOST


@pytest.mark.parametrize(("now", "most", "pause"), [(0, 10, 2), (15, 5, 2), (19, 1, 1), (30, 0, 0)])
def test_nothing_lasts_over_the_end_of_the_lease(now: float, most: float, pause: float) -> None:
    lease = Lease(0)
    lease.beaten(beat(ttl=20), 0)
    assert (lease.beat_seconds(now), lease.retry_seconds(now)) == (most, pause)

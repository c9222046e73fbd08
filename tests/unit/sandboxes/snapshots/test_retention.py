from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from handiwork.sandboxes.snapshots.retention import expired, outlived

NUMBERS = st.sets(st.integers(1, 50))


def test_the_oldest_go():
    assert expired([1, 2, 3, 4, 5], [2], keep=2) == [1, 3]
    assert expired([], [], keep=3) == []


@given(NUMBERS, NUMBERS, st.integers(-2, 60))
def test_the_newest_and_the_pinned_always_stay(numbers, pinned, keep):
    gone = expired(numbers, pinned, keep=keep)
    left = numbers - set(gone)
    assert not set(gone) & pinned
    assert not numbers or max(numbers) in left
    assert len(left - pinned) >= min(max(keep, 1), len(numbers - pinned))


def test_those_of_a_closed_sandbox_stay_so_long():
    closed = datetime(2026, 1, 1, tzinfo=UTC)
    assert not outlived(None, closed, closed_seconds=0)
    assert outlived(closed, closed, closed_seconds=0)
    assert not outlived(closed, closed + timedelta(seconds=59), closed_seconds=60)
    assert outlived(closed, closed + timedelta(seconds=60), closed_seconds=60)

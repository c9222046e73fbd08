"""Time that only goes on, ids with a prefix."""

from datetime import UTC, datetime, timedelta

from handiwork.brains.local.clock import StrictClock, ids


def test_every_reading_is_later_than_the_one_before():
    start = datetime(2026, 1, 1, tzinfo=UTC)
    readings = iter([start, start, start - timedelta(hours=1), start + timedelta(seconds=1)])
    clock = StrictClock(lambda: next(readings))
    seen = [clock() for _ in range(4)]
    assert seen == sorted(set(seen))
    assert seen[3] == start + timedelta(seconds=1)


def test_ids_have_their_prefix():
    assert ids(lambda count: b"\x0f" * count)("work") == "work_01" + "0f" * 11

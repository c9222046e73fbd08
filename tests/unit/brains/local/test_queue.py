"""The work queue's named cases; the property test walks the rest."""

from datetime import UTC, datetime, timedelta

import pytest

from handiwork.brains.local import queue
from handiwork.brains.local.queue import NO_HEARTBEAT, Queue, State, WorkItem, timestamp
from handiwork.model.errors import ConflictError, LeaseLostError, NotFoundError

NOW = datetime(2026, 11, 21, 1, 40, 50, 986762, tzinfo=UTC)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def item(name: str = "1", **changes) -> WorkItem:
    values = {
        "id": f"work_{name}",
        "environment_id": "env_1",
        "subject_id": f"sesn_{name}",
        "created_at": NOW,
        "available_at": NOW,
    }
    return WorkItem(**{**values, **changes})


def active() -> tuple[Queue, WorkItem]:
    work = Queue([item()])
    work.poll(NOW)
    work.acknowledge("work_1", later(1))
    return work, work.beat("work_1", later(2), expected=NO_HEARTBEAT)


def test_the_way_of_an_item():
    work, beaten = active()
    assert beaten.state is State.ACTIVE
    assert beaten.started_at == beaten.last_heartbeat_at == later(2)
    again = work.beat("work_1", later(3), expected=timestamp(later(2)))
    assert again.started_at == later(2)
    stopping = work.stop("work_1", later(4), force=False, turn_open=True, new_id="work_2")
    assert [each.state for each in stopping] == [State.STOPPING]
    ended = work.stop("work_1", later(5), force=True, turn_open=False, new_id="work_2")
    assert [each.state for each in ended] == [State.STOPPED]
    assert ended[0].stopped_at == later(5)
    assert ended[0].stop_requested_at == later(4)


def test_timestamps_have_a_fixed_width():
    assert timestamp(NOW) == "2026-11-21T01:40:50.986762Z"
    assert timestamp(NOW.replace(microsecond=0)) == "2026-11-21T01:40:50.000000Z"


def test_the_oldest_is_handed_out_first():
    work = Queue([item("2", created_at=later(1)), item("1")])
    assert [work.poll(later(2)).id, work.poll(later(2)).id] == ["work_1", "work_2"]


def test_an_unacknowledged_item_comes_back_after_the_reclaim_time():
    work = Queue([item()])
    assert work.poll(NOW)
    assert work.poll(later(4.9)) is None
    assert work.next_claimable_at(queue.RECLAIM_AFTER) == later(5)
    assert work.poll(later(2), timedelta(seconds=2))
    assert work.stats() == queue.Stats(depth=0, pending=1, oldest_queued_at=NOW)


def test_an_acknowledged_item_never_comes_back_by_reclaim():
    work, _ = active()
    assert work.poll(later(100)) is None
    with pytest.raises(ConflictError):
        work.acknowledge("work_1", later(100))


@pytest.mark.parametrize("expected", [NO_HEARTBEAT, "", "2026-11-21T01:40:52.986762+00:00"])
def test_a_heartbeat_that_expects_something_else_is_refused(expected):
    work, before = active()
    with pytest.raises(LeaseLostError):
        work.beat("work_1", later(3), expected=expected)
    assert work.get("work_1") == before


def test_a_heartbeat_before_the_acknowledgement_is_refused():
    work = Queue([item()])
    work.poll(NOW)
    with pytest.raises(LeaseLostError):
        work.beat("work_1", later(1), expected=NO_HEARTBEAT)


def test_an_ended_item_tells_every_heartbeat_so():
    work, _ = active()
    work.stop("work_1", later(3), force=True, turn_open=False, new_id="x")
    assert work.beat("work_1", later(4), expected="anything").state is State.STOPPED
    with pytest.raises(ConflictError):
        work.stop("work_1", later(5), force=True, turn_open=False, new_id="x")


def test_a_lapsed_lease_goes_back_and_its_owner_is_told():
    work, beaten = active()
    assert work.next_expiry_at() == later(302)
    assert work.expire(later(301), lambda _: True, lambda: "x") == []
    [back] = work.expire(later(302), lambda _: True, lambda: "x")
    assert (back.state, back.epoch, back.last_heartbeat_at) == (State.QUEUED, 1, None)
    work.poll(later(303))
    work.acknowledge("work_1", later(303))
    with pytest.raises(LeaseLostError):
        work.beat("work_1", later(304), expected=timestamp(beaten.last_heartbeat_at))
    with pytest.raises(LeaseLostError):
        work.beat("work_1", later(304), expected=NO_HEARTBEAT, epoch=0)
    assert work.beat("work_1", later(304), expected=NO_HEARTBEAT, epoch=1).state is State.ACTIVE


def test_a_lapsed_lease_of_a_session_with_nothing_to_do_ends():
    work, _ = active()
    [ended] = work.expire(later(302), lambda _: False, lambda: "x")
    assert ended.state is State.STOPPED
    assert work.live_for("sesn_1") is None


def test_a_lapsed_stopping_item_is_followed_when_the_turn_is_open():
    work, _ = active()
    work.stop("work_1", later(3), force=False, turn_open=True, new_id="x")
    ended, follower = work.expire(later(400), lambda _: True, lambda: "work_9")
    assert (ended.state, follower.id, follower.state) == (State.STOPPED, "work_9", State.QUEUED)


def test_an_early_end_is_followed_and_later_each_time():
    work = Queue([item("0", subject_id="sesn_1")])
    delays = []
    for number in range(1, 9):
        moment = work.next_claimable_at(queue.RECLAIM_AFTER)
        taken = work.poll(moment)
        _, follower = work.stop(
            taken.id, moment, force=True, turn_open=True, new_id=f"work_{number}"
        )
        delays.append((follower.available_at - moment).total_seconds())
    assert delays == [0, 1, 2, 4, 8, 16, 30, 30]


def test_an_end_after_some_work_is_followed_at_once():
    work, _ = active()
    _, follower = work.stop("work_1", later(60), force=True, turn_open=True, new_id="work_2")
    assert follower.available_at == later(60)
    assert follower.quick_ends == 0


def test_a_healthcheck_is_never_followed():
    work = Queue([item(kind="healthcheck", subject_id="work_1")])
    work.poll(NOW)
    work.acknowledge("work_1", NOW)
    assert len(work.stop("work_1", NOW, force=True, turn_open=True, new_id="x")) == 1


def test_lease_times_have_bounds():
    work, beaten = active()
    long = work.beat(
        "work_1", later(3), expected=timestamp(beaten.last_heartbeat_at), lease_seconds=10**9
    )
    assert long.lease_seconds == queue.MAX_LEASE_SECONDS


def test_ended_items_are_forgotten_in_the_end(monkeypatch):
    monkeypatch.setattr(queue, "STOPPED_ITEMS", 2)
    work = Queue([item(str(number)) for number in range(4)])
    for number in range(4):
        work.stop(f"work_{number}", later(1), force=True, turn_open=False, new_id="x")
    with pytest.raises(NotFoundError):
        work.get("work_0")
    assert work.get("work_3").state is State.STOPPED


def test_metadata_is_replaced():
    work = Queue([item()])
    assert work.annotate("work_1", {"a": "b"}).metadata == {"a": "b"}

"""The work queue under every order of events: one live item, one owner, nothing lost."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from handiwork.brains.local.queue import (
    NO_HEARTBEAT,
    RECLAIM_AFTER,
    TRANSITIONS,
    Queue,
    State,
    WorkItem,
    timestamp,
)
from handiwork.model.errors import ConflictError, LeaseLostError

SESSIONS = ("sesn_a", "sesn_b", "sesn_c")
ORDER = [State.QUEUED, State.STARTING, State.ACTIVE, State.STOPPING, State.STOPPED]


class Holder:
    """A party that polled an item and remembers what it believes about the lease."""

    def __init__(self, item: WorkItem) -> None:
        self.work_id = item.id
        self.epoch = item.epoch
        self.last = NO_HEARTBEAT
        self.owns = False


class Service(RuleBasedStateMachine):
    """Sessions whose turns open and close, holders that come, go and come back too late."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = Queue()
        self.now = datetime(2026, 11, 21, tzinfo=UTC)
        self.open: set[str] = set()
        self.holders: list[Holder] = []
        self.ids = 0

    def new_id(self) -> str:
        self.ids += 1
        return f"work_{self.ids}"

    @rule(session=st.sampled_from(SESSIONS))
    def a_message_arrives(self, session):
        self.open.add(session)
        had = self.queue.live_for(session)
        item = WorkItem(
            id=self.new_id(),
            environment_id="env_a",
            subject_id=session,
            created_at=self.now,
            available_at=self.now,
        )
        assert (self.queue.put(item) is None) == (had is not None)

    @rule(session=st.sampled_from(SESSIONS))
    def the_turn_ends(self, session):
        self.open.discard(session)

    @rule(milliseconds=st.sampled_from([1, 500, 6_000, 40_000, 301_000]))
    def time_passes(self, milliseconds):
        self.now += timedelta(milliseconds=milliseconds)
        before = {item.id: item for item in self.queue.live()}
        for item in self.queue.expire(self.now, self.open.__contains__, self.new_id):
            if item.id in before:
                assert before[item.id].lease_ends_at <= self.now
        assert all(
            (end := item.lease_ends_at) is None or end > self.now for item in self.queue.live()
        )

    @rule()
    def somebody_polls(self):
        item = self.queue.poll(self.now)
        if item is None:
            due = self.queue.next_claimable_at(RECLAIM_AFTER)
            assert due is None or due > self.now
            return
        assert item.state is State.QUEUED
        self.holders.append(Holder(item))

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def a_holder_acknowledges(self, data):
        holder = data.draw(st.sampled_from(self.holders))
        was = self.queue.get(holder.work_id).state
        try:
            self.queue.acknowledge(holder.work_id, self.now)
        except ConflictError:
            assert was is not State.QUEUED
        else:
            assert was is State.QUEUED

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), seconds=st.sampled_from([None, 1, 30, 10**9]))
    def a_holder_beats(self, data, seconds):
        holder = data.draw(st.sampled_from(self.holders))
        before = self.queue.get(holder.work_id)
        self.now += timedelta(microseconds=1)
        try:
            after = self.queue.beat(
                holder.work_id,
                self.now,
                expected=holder.last,
                lease_seconds=seconds,
                epoch=holder.epoch,
            )
        except LeaseLostError:
            assert before.state in (State.QUEUED, State.STARTING, State.ACTIVE)
            assert self.queue.get(holder.work_id) == before
            return
        if after.state is State.ACTIVE:
            assert not any(
                other.owns and other is not holder and other.epoch == after.epoch
                for other in self.holders
                if other.work_id == holder.work_id
            )
            assert after.lease_ends_at > self.now
            holder.owns = True
            holder.last = timestamp(after.last_heartbeat_at)

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), force=st.booleans())
    def a_holder_stops(self, data, force):
        holder = data.draw(st.sampled_from(self.holders))
        before = self.queue.get(holder.work_id)
        is_open = before.subject_id in self.open
        try:
            changed = self.queue.stop(
                holder.work_id, self.now, force=force, turn_open=is_open, new_id=self.new_id()
            )
        except ConflictError:
            assert not before.live
            return
        assert changed[0].id == before.id
        assert len(changed) == 1 + (not changed[0].live and is_open)

    @invariant()
    def a_session_has_one_live_item(self):
        sessions = [item.subject_id for item in self.queue.live()]
        assert len(sessions) == len(set(sessions))

    @invariant()
    def an_open_turn_never_lacks_work(self):
        for session in self.open:
            assert self.queue.live_for(session) is not None

    @invariant()
    def states_agree_with_their_times(self):
        for item in self.queue.live():
            assert (item.acknowledged_at is None) == (item.state is State.QUEUED)
            assert (item.lease_ends_at is None) == (item.state is State.QUEUED)
            assert item.stopped_at is None


TestService = Service.TestCase
TestService.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_no_transition_leaves_the_end():
    assert {new for (old, _), new in TRANSITIONS.items() if old is State.STOPPED} == {State.STOPPED}


@pytest.mark.parametrize("state", ORDER)
def test_every_state_is_reachable(state):
    reached, frontier = {State.QUEUED}, [State.QUEUED]
    while frontier:
        here = frontier.pop()
        for (old, _), new in TRANSITIONS.items():
            if old is here and new not in reached:
                reached.add(new)
                frontier.append(new)
    assert state in reached

"""The work queue of one environment and the lease of each item: every rule, no I/O.

Rule 1: everything that affects an item's state stands in TRANSITIONS; what is not there is refused.
Rule 2: a session has at most one live item.
Rule 3: a lease has one owner. The first heartbeat expects NO_HEARTBEAT, later ones echo the
server's last one; a mismatch says that somebody else owns it.
Rule 4: an item that ends while the session's turn is open is followed by another.

Time and new ids are arguments. Methods of `Queue` return the items that changed, for the caller to
keep.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Literal

import msgspec

from handiwork.model.errors import ConflictError, LeaseLostError, NotFoundError

NO_HEARTBEAT = "NO_HEARTBEAT"
DEFAULT_LEASE_SECONDS = 300
MAX_LEASE_SECONDS = 3600
RECLAIM_AFTER = timedelta(milliseconds=5000)
QUICK_END = timedelta(seconds=5)
"""A holder that gives up an open turn sooner than this has probably failed: the next waits."""
MAX_DELAY_SECONDS = 30
STOPPED_ITEMS = 1024
"""How many ended items are remembered, so that a late heartbeat learns its end."""


class State(StrEnum):
    """Where an item stands; the words are the protocol's."""

    QUEUED = "queued"
    STARTING = "starting"
    ACTIVE = "active"
    STOPPING = "stopping"
    STOPPED = "stopped"


class Verb(StrEnum):
    """What happens to an item."""

    HAND_OUT = "hand out"
    ACKNOWLEDGE = "acknowledge"
    BEAT = "beat"
    STOP = "stop"
    FORCE_STOP = "force-stop"
    EXPIRE = "expire"
    EXPIRE_IDLE = "expire while no turn is open"


TRANSITIONS = MappingProxyType(
    {
        (State.QUEUED, Verb.HAND_OUT): State.QUEUED,
        (State.QUEUED, Verb.ACKNOWLEDGE): State.STARTING,
        (State.STARTING, Verb.BEAT): State.ACTIVE,
        (State.ACTIVE, Verb.BEAT): State.ACTIVE,
        (State.STOPPING, Verb.BEAT): State.STOPPING,
        (State.STOPPED, Verb.BEAT): State.STOPPED,
        (State.QUEUED, Verb.STOP): State.STOPPED,
        (State.STARTING, Verb.STOP): State.STOPPING,
        (State.ACTIVE, Verb.STOP): State.STOPPING,
        (State.STOPPING, Verb.STOP): State.STOPPING,
        (State.QUEUED, Verb.FORCE_STOP): State.STOPPED,
        (State.STARTING, Verb.FORCE_STOP): State.STOPPED,
        (State.ACTIVE, Verb.FORCE_STOP): State.STOPPED,
        (State.STOPPING, Verb.FORCE_STOP): State.STOPPED,
        (State.STARTING, Verb.EXPIRE): State.QUEUED,
        (State.ACTIVE, Verb.EXPIRE): State.QUEUED,
        (State.STOPPING, Verb.EXPIRE): State.STOPPED,
        (State.STARTING, Verb.EXPIRE_IDLE): State.STOPPED,
        (State.ACTIVE, Verb.EXPIRE_IDLE): State.STOPPED,
        (State.STOPPING, Verb.EXPIRE_IDLE): State.STOPPED,
    }
)


class WorkItem(msgspec.Struct, frozen=True, kw_only=True):
    """One unit of work. `epoch` counts the leases it has had: credentials of an older one are void."""

    id: str
    environment_id: str
    kind: Literal["session", "healthcheck"] = "session"
    subject_id: str
    state: State = State.QUEUED
    metadata: dict[str, str] = {}
    created_at: datetime
    available_at: datetime
    handed_out_at: datetime | None = None
    acknowledged_at: datetime | None = None
    started_at: datetime | None = None
    last_heartbeat_at: datetime | None = None
    stop_requested_at: datetime | None = None
    stopped_at: datetime | None = None
    lease_seconds: int = DEFAULT_LEASE_SECONDS
    epoch: int = 0
    quick_ends: int = 0

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.state is not State.STOPPED

    @property
    def lease_ends_at(self) -> datetime | None:
        """When the lease lapses without another heartbeat; None where nobody holds one."""
        if self.state in (State.QUEUED, State.STOPPED):
            return None
        held_from = self.last_heartbeat_at or self.acknowledged_at
        return held_from + timedelta(seconds=self.lease_seconds) if held_from else None

    def claimable_at(self, reclaim_after: timedelta) -> datetime | None:
        """When a poll may be given the item: once, and again if it is not acknowledged."""
        if self.state is not State.QUEUED:
            return None
        if self.handed_out_at is None:
            return self.available_at
        return max(self.available_at, self.handed_out_at + reclaim_after)


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """`depth` waits for a poll, `pending` was polled and not acknowledged."""

    depth: int
    pending: int
    oldest_queued_at: datetime | None


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds: fixed width, so that texts sort as moments do."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def hand_out(item: WorkItem, now: datetime) -> WorkItem:
    """Give the item to a poll; it stays in the queue until it is acknowledged."""
    return _moved(item, Verb.HAND_OUT, handed_out_at=now)


def acknowledge(item: WorkItem, now: datetime) -> WorkItem:
    """Take the item off the queue; the lease runs from now."""
    return _moved(item, Verb.ACKNOWLEDGE, acknowledged_at=now)


def beat(
    item: WorkItem,
    now: datetime,
    *,
    expected: str | None,
    lease_seconds: int | None = None,
    epoch: int | None = None,
) -> WorkItem:
    """Extend the lease for its owner; LeaseLostError when the caller is not the owner.

    Nothing is compared once the item is stopping or stopped: the caller has to learn that.
    """
    if item.state in (State.STOPPING, State.STOPPED):
        return _moved(item, Verb.BEAT) if not item.live else _moved(item, Verb.BEAT, **_beaten(now))
    actual = timestamp(item.last_heartbeat_at) if item.last_heartbeat_at else NO_HEARTBEAT
    stale = epoch is not None and epoch != item.epoch
    if item.state is State.QUEUED or stale or expected not in (None, actual):
        raise LeaseLostError(f"work item {item.id}: the heartbeat precondition failed")
    seconds = item.lease_seconds if lease_seconds is None else lease_seconds
    return _moved(
        item,
        Verb.BEAT,
        **_beaten(now),
        started_at=item.started_at or now,
        lease_seconds=max(1, min(seconds, MAX_LEASE_SECONDS)),
    )


def stop(item: WorkItem, now: datetime, *, force: bool) -> WorkItem:
    """Ask the holder to stop, or end the item at once. ConflictError when it has ended."""
    moved = _moved(
        item,
        Verb.FORCE_STOP if force else Verb.STOP,
        stop_requested_at=item.stop_requested_at or now,
    )
    return moved if moved.live else msgspec.structs.replace(moved, stopped_at=now)


def expire(item: WorkItem, now: datetime, *, turn_open: bool) -> WorkItem:
    """End a lapsed lease: back to the queue, or to its end where nothing is left to do."""
    moved = _moved(item, Verb.EXPIRE if turn_open else Verb.EXPIRE_IDLE)
    if not moved.live:
        return msgspec.structs.replace(moved, stopped_at=now)
    return msgspec.structs.replace(
        moved,
        epoch=item.epoch + 1,
        available_at=now,
        handed_out_at=None,
        acknowledged_at=None,
        started_at=None,
        last_heartbeat_at=None,
    )


def successor(item: WorkItem, work_id: str, now: datetime) -> WorkItem:
    """Return the item that follows one which ended too early, later the more often it happens."""
    held_from = item.acknowledged_at or item.handed_out_at or now
    quick_ends = item.quick_ends + 1 if now - held_from < QUICK_END else 0
    delay = min(2 ** (quick_ends - 2), MAX_DELAY_SECONDS) if quick_ends > 1 else 0
    return WorkItem(
        id=work_id,
        environment_id=item.environment_id,
        kind=item.kind,
        subject_id=item.subject_id,
        created_at=now,
        available_at=now + timedelta(seconds=delay),
        quick_ends=min(quick_ends, 16),
    )


def _beaten(now: datetime) -> dict[str, datetime]:
    return {"last_heartbeat_at": now}


def _moved(item: WorkItem, verb: Verb, **changes: object) -> WorkItem:
    state = TRANSITIONS.get((item.state, verb))
    if state is None:
        raise ConflictError(f"work item {item.id} is {item.state}: it cannot {verb}")
    return msgspec.structs.replace(item, state=state, **changes)


class Queue:
    """The items of one environment that are live, and the last ones that ended."""

    def __init__(self, items: Iterable[WorkItem] = ()) -> None:
        self._items: dict[str, WorkItem] = {}
        self._live: dict[str, str] = {}
        for item in items:
            self._keep(item)

    def get(self, work_id: str) -> WorkItem:
        """NotFoundError when it never was or is forgotten."""
        try:
            return self._items[work_id]
        except KeyError:
            raise NotFoundError(f"work item {work_id} does not exist") from None

    def live(self) -> list[WorkItem]:
        """Items that have not ended, oldest first."""
        items = (self._items[work_id] for work_id in self._live.values())
        return sorted(items, key=lambda item: item.created_at)

    def live_for(self, subject_id: str) -> WorkItem | None:
        """Return the session's live item."""
        work_id = self._live.get(subject_id)
        return self._items[work_id] if work_id else None

    def put(self, item: WorkItem) -> WorkItem | None:
        """Queue a new item; None when its session has a live one already."""
        return None if item.subject_id in self._live else self._keep(item)

    def poll(self, now: datetime, reclaim_after: timedelta = RECLAIM_AFTER) -> WorkItem | None:
        """Hand out the oldest item that may be had."""
        for item in self.live():
            at = item.claimable_at(reclaim_after)
            if at is not None and at <= now:
                return self._keep(hand_out(item, now))
        return None

    def next_claimable_at(self, reclaim_after: timedelta) -> datetime | None:
        """When a poll that finds nothing now would find something, if nothing else happens."""
        moments = (item.claimable_at(reclaim_after) for item in self.live())
        return min((at for at in moments if at is not None), default=None)

    def next_expiry_at(self) -> datetime | None:
        """When the first lease lapses."""
        ends = (item.lease_ends_at for item in self.live())
        return min((at for at in ends if at is not None), default=None)

    def acknowledge(self, work_id: str, now: datetime) -> WorkItem:
        """ConflictError when it was acknowledged already."""
        return self._keep(acknowledge(self.get(work_id), now))

    def beat(
        self,
        work_id: str,
        now: datetime,
        *,
        expected: str | None,
        lease_seconds: int | None = None,
        epoch: int | None = None,
    ) -> WorkItem:
        """LeaseLostError when the caller does not own the lease."""
        item = self.get(work_id)
        return self._keep(
            beat(item, now, expected=expected, lease_seconds=lease_seconds, epoch=epoch)
        )

    def stop(
        self, work_id: str, now: datetime, *, force: bool, turn_open: bool, new_id: str
    ) -> list[WorkItem]:
        """Stop an item; when it ends with the turn open, its successor comes second."""
        ended = self._keep(stop(self.get(work_id), now, force=force))
        return [ended, *self._follow(ended, now, turn_open=turn_open, new_id=new_id)]

    def expire(
        self, now: datetime, turn_open: Callable[[str], bool], new_id: Callable[[], str]
    ) -> list[WorkItem]:
        """End every lapsed lease. `turn_open` is asked about the session of each."""
        changed: list[WorkItem] = []
        for item in self.live():
            ends_at = item.lease_ends_at
            if ends_at is None or ends_at > now:
                continue
            is_open = item.kind == "session" and turn_open(item.subject_id)
            moved = self._keep(expire(item, now, turn_open=is_open))
            changed.append(moved)
            changed += self._follow(moved, now, turn_open=is_open, new_id=new_id())
        return changed

    def annotate(self, work_id: str, metadata: dict[str, str]) -> WorkItem:
        """Replace an item's metadata."""
        return self._keep(msgspec.structs.replace(self.get(work_id), metadata=metadata))

    def stats(self) -> Stats:
        """Count what waits."""
        queued = [item for item in self.live() if item.state is State.QUEUED]
        pending = sum(1 for item in queued if item.handed_out_at is not None)
        return Stats(
            depth=len(queued) - pending,
            pending=pending,
            oldest_queued_at=queued[0].created_at if queued else None,
        )

    def _follow(
        self, ended: WorkItem, now: datetime, *, turn_open: bool, new_id: str
    ) -> list[WorkItem]:
        if ended.live or not turn_open or ended.kind != "session":
            return []
        return [self._keep(successor(ended, new_id, now))]

    def _keep(self, item: WorkItem) -> WorkItem:
        self._items.pop(item.id, None)
        self._items[item.id] = item
        if item.live:
            self._live[item.subject_id] = item.id
        elif self._live.get(item.subject_id) == item.id:
            del self._live[item.subject_id]
            self._forget_oldest()
        return item

    def _forget_oldest(self) -> None:
        ended = len(self._items) - len(self._live)
        for work_id in list(self._items) if ended > STOPPED_ITEMS else ():
            if not self._items[work_id].live:
                del self._items[work_id]
                return

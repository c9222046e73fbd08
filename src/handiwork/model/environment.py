"""Environments of a brain as their operator sees them, and the leases that we hold there."""

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.session import WorkItem


class KeptLease(msgspec.Struct, frozen=True, kw_only=True):
    """What a successor of ours needs to go on with a lease. `last_heartbeat` is the brain's, verbatim.

    `beaten_at` is when the last successful beat was sent, by our clock. The item's secret is
    sealed at rest and never shown.
    """

    tenant: str = DEFAULT_TENANT
    work: WorkItem
    last_heartbeat: str
    ttl_seconds: float
    beaten_at: datetime

    @property
    def lapses_at(self) -> datetime:
        """When the brain gives the item to others, unless it is beaten before."""
        return self.beaten_at + timedelta(seconds=self.ttl_seconds)


class QueueStats(msgspec.Struct, frozen=True, kw_only=True):
    """A queue as the brain counts it: `depth` waits, `pending` is handed out and not acknowledged."""

    depth: int = 0
    pending: int = 0
    oldest_queued_at: datetime | None = None
    workers_polling: int | None = None


class HeldLease(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that we hold, as operators see it."""

    work_id: str
    session_id: str
    last_beat_seconds: float
    ttl_seconds: float


ClaimState = Literal["starting", "polling", "waiting", "full", "refused", "draining"]


class EnvironmentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One environment: how claiming its work stands, since when and why, and what it holds.

    `queue` is None where the brain did not say; `queue_error` is why.
    """

    id: str
    base_url: str
    state: ClaimState
    reason: str = ""
    since: datetime
    queue: QueueStats | None = None
    queue_error: str = ""
    leases: tuple[HeldLease, ...] = ()
    sessions: tuple[str, ...] = ()

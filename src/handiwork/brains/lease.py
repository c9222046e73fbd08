"""Keeping a work item's lease: when to beat, and what an answer means. Time is an argument."""

import enum
from typing import Self

import msgspec

NO_HEARTBEAT = "NO_HEARTBEAT"
"""What the first heartbeat expects to find."""

ASSUMED_TTL_SECONDS = 90.0
"""Until the brain has told its own."""

_INTERVAL_SECONDS = (0.3, 30.0)
_RETRY_SECONDS = 2.0


class Beat(msgspec.Struct, frozen=True, kw_only=True):
    """The brain's answer to a heartbeat."""

    last_heartbeat: str
    lease_extended: bool
    state: str
    ttl_seconds: float


class Held(enum.Enum):
    """Where a lease stands."""

    OURS = "ours"
    STOPPING = "stopping"
    LOST = "lost"


class Lease:
    """One lease. `expected` is echoed to the brain byte for byte."""

    def __init__(self, now: float) -> None:
        self.expected = NO_HEARTBEAT
        self.state = Held.OURS
        self.ttl_seconds = ASSUMED_TTL_SECONDS
        self._extended_at = now

    @classmethod
    def resumed(
        cls, last_heartbeat: str, ttl_seconds: float, age_seconds: float, now: float
    ) -> Self:
        """Go on with a lease whose last beat was sent `age_seconds` ago."""
        lease = cls(now - max(0.0, age_seconds))
        lease.expected, lease.ttl_seconds = last_heartbeat, ttl_seconds
        return lease

    @property
    def interval_seconds(self) -> float:
        """Return the time between beats."""
        shortest, longest = _INTERVAL_SECONDS
        return max(shortest, min(self.ttl_seconds / 2, longest))

    def beat_seconds(self, now: float) -> float:
        """Return the most that a beat may take: an answer after the lease's end is no use."""
        return min(max(self.interval_seconds, _RETRY_SECONDS), max(0.0, self._left(now)))

    def retry_seconds(self, now: float) -> float:
        """Return the pause before a beat that the brain did not answer is sent again."""
        return min(_RETRY_SECONDS, self.interval_seconds, max(0.0, self._left(now)))

    def beaten(self, beat: Beat, sent_at: float) -> None:
        """Take in the answer to a beat; the lease runs from when it was sent at the earliest."""
        self.expected = beat.last_heartbeat
        self.ttl_seconds = beat.ttl_seconds if beat.ttl_seconds > 0 else ASSUMED_TTL_SECONDS
        self._extended_at = sent_at
        if beat.state in ("stopping", "stopped") or not beat.lease_extended:
            self.state = Held.STOPPING

    def silent(self, now: float) -> None:
        """Take in that no beat was answered until now: after a whole TTL the lease is gone."""
        if self._left(now) <= 0:
            self.state = Held.LOST

    def mismatched(self) -> None:
        """Take in that somebody else holds the lease."""
        self.state = Held.LOST

    def _left(self, now: float) -> float:
        return self._extended_at + self.ttl_seconds - now

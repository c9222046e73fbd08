"""Keeping a work item's lease: when to beat, and what an answer means. Time is an argument."""

import enum

import msgspec

NO_HEARTBEAT = "NO_HEARTBEAT"
"""What the first heartbeat expects to find."""

ASSUMED_TTL_SECONDS = 90.0
"""Until the brain has told its own."""

_LONGEST_INTERVAL_SECONDS = 30.0


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
        self._ttl = ASSUMED_TTL_SECONDS
        self._last_success = now

    @property
    def interval_seconds(self) -> float:
        """Return the time between beats, and the most that one beat may take."""
        return max(1.0, min(self._ttl / 2, _LONGEST_INTERVAL_SECONDS))

    def beaten(self, beat: Beat, now: float) -> None:
        """Take in an answer."""
        self.expected = beat.last_heartbeat
        self._ttl = beat.ttl_seconds if beat.ttl_seconds > 0 else ASSUMED_TTL_SECONDS
        self._last_success = now
        if beat.state in ("stopping", "stopped") or not beat.lease_extended:
            self.state = Held.STOPPING

    def failed(self, now: float) -> None:
        """Take in a beat without an answer: after a whole TTL of them the lease is gone."""
        if now - self._last_success >= self._ttl:
            self.state = Held.LOST

    def mismatched(self) -> None:
        """Take in that somebody else holds the lease."""
        self.state = Held.LOST

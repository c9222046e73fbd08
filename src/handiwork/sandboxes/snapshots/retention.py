"""Which generations stay; pure."""

from collections.abc import Collection
from datetime import datetime


def expired(numbers: Collection[int], pinned: Collection[int], *, keep: int) -> list[int]:
    """Return the generations that may go, the oldest first: not the last `keep`, nor a pinned one.

    The newest always stays, and a pinned one takes nobody's place.
    """
    free = sorted(set(numbers) - set(pinned))
    gone = free[: max(0, len(free) - max(1, keep))]
    return [number for number in gone if number != max(numbers)]


def outlived(closed_at: datetime | None, now: datetime, *, closed_seconds: float) -> bool:
    """Say whether a sandbox is closed for so long that its generations go; None: it is not closed."""
    return closed_at is not None and (now - closed_at).total_seconds() >= closed_seconds

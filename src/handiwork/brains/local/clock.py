"""Time and names that never repeat: what the process draws from outside for everything else."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
NewId = Callable[[str], str]

_TICK = timedelta(microseconds=1)


class StrictClock:
    """A clock whose every reading is later than the one before, whatever the machine's does."""

    def __init__(self, source: Clock) -> None:
        self._source = source
        self._last = datetime.min.replace(tzinfo=UTC)

    def __call__(self) -> datetime:
        """Return the next moment, in UTC."""
        self._last = max(self._source(), self._last + _TICK)
        return self._last


def ids(entropy: Callable[[int], bytes]) -> NewId:
    """Return a maker of prefixed ids from a source of random bytes."""

    def new_id(prefix: str) -> str:
        return f"{prefix}_01{entropy(11).hex()}"

    return new_id

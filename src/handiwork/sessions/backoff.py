"""How long a session that failed here is left alone before it is tried again. Pure.

Time is an argument, in seconds of any steady clock. What is known of a session is forgotten when it
comes to rest, or has not failed for long; a restart forgets all.
"""

import msgspec

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
FORGET_SECONDS = 1800.0
"""A failure after so long without one counts as the first again."""

MAX_SESSIONS = 1000
"""So many are known, those that failed last."""


class Failure(msgspec.Struct, frozen=True):
    """How often a session failed in a row, why the last time, and until when it is left alone."""

    count: int
    reason: str
    at: float
    until: float

    def __str__(self) -> str:
        """Say it to the operator."""
        seconds = self.until - self.at
        return (
            f"it failed here {self.count} times in a row and is tried again {seconds:g} s after the"
            f" last, which was: {self.reason}"
        )


class BackOff:
    """The sessions of one environment that failed: the pause doubles with each failure in a row."""

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}

    def failed(self, session_id: str, reason: str, now: float) -> None:
        """Take in a failure."""
        former = self._failures.pop(session_id, None)
        recent = former is not None and now - former.at < FORGET_SECONDS
        count = former.count + 1 if former and recent else 1
        pause = min(FIRST_SECONDS * 2 ** min(count - 1, 32), LONGEST_SECONDS)
        self._failures[session_id] = Failure(count, reason, now, now + pause)
        if len(self._failures) > MAX_SESSIONS:
            del self._failures[next(iter(self._failures))]

    def rested(self, session_id: str) -> None:
        """Forget a session that was served to its rest."""
        self._failures.pop(session_id, None)

    def of(self, session_id: str, now: float) -> Failure | None:
        """Return why it is left alone; None when it is not."""
        failure = self._failures.get(session_id)
        return failure if failure and now < failure.until else None

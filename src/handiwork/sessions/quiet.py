"""When a session has nothing to do: the clock that puts it to sleep.

It stands while anything is under way, here or at the brain. Until the history was read nobody knows
what waits, so a brain out of reach makes a session quiet only after the longer of the two times.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from handiwork.model.session import TurnIdle, TurnRunning

OPEN_TURN = "requires_action"
"""The one reason to rest that leaves a turn open."""


class Quiet:
    """What is known of a session's turn and of the way to its brain, and the clock that follows."""

    def __init__(self, idle_seconds: float, unreached_seconds: float) -> None:
        self._idle_seconds = idle_seconds
        self._unreached_seconds = max(idle_seconds, unreached_seconds)
        self._reached = False
        self._turn_known = False
        self.turn_open = False
        self.outdated = False
        """Whether the brain changed what the session has; it is taken up anew from its next turn on."""
        self._clock: asyncio.Timeout | None = None

    @property
    def turn_over(self) -> bool:
        """Whether the brain said that no turn is open."""
        return self._turn_known and not self.turn_open

    @contextlib.asynccontextmanager
    async def clock(self) -> AsyncIterator[asyncio.Timeout]:
        """Run the clock; TimeoutError when the session has been quiet for its time."""
        async with asyncio.timeout(self._seconds()) as clock:
            self._clock = clock
            try:
                yield clock
            finally:
                self._clock = None

    def reached(self, yes: bool) -> bool:
        """Take in whether the brain can be followed; True when that is new, and the clock begins anew."""
        changed, self._reached = yes is not self._reached, yes
        return changed

    def take(self, event: TurnRunning | TurnIdle) -> None:
        """Take in what the brain says of the turn."""
        self._turn_known = True
        self.turn_open = isinstance(event, TurnRunning) or event.stop_reason == OPEN_TURN

    def rearm(self, *, busy: bool, draining: bool) -> None:
        """Begin anew, or stand; one that drains, or is outdated, rests as soon as it can."""
        if self._clock is None or self._clock.expired():
            return
        now = asyncio.get_running_loop().time()
        if busy or (self.turn_open and not draining):
            self._clock.reschedule(None)
        else:
            at_once = draining or self.outdated
            self._clock.reschedule(now if at_once else now + self._seconds())

    def _seconds(self) -> float:
        return self._idle_seconds if self._reached else self._unreached_seconds

"""When the agent must have closed a request; the clock can be stopped while it cannot answer."""

import asyncio
from collections.abc import Callable

Late = Callable[[float], None]


class Deadlines:
    """Deadlines by request id; `late` is told the seconds that were given when one passes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, late: Late) -> None:
        self._loop = loop
        self._late = late
        self._armed: dict[int, tuple[float, asyncio.TimerHandle]] = {}
        self._left: dict[int, tuple[float, float]] | None = None

    def set(self, request_id: int, seconds: float) -> None:
        """Give a request so many seconds from now on."""
        self.clear(request_id)
        if self._left is None:
            self._arm(request_id, seconds, seconds)
        else:
            self._left[request_id] = (seconds, seconds)

    def clear(self, request_id: int) -> None:
        """Forget a request. No-op when it has no deadline."""
        _, timer = self._armed.pop(request_id, (0, None))
        if timer is not None:
            timer.cancel()
        if self._left is not None:
            self._left.pop(request_id, None)

    def clear_all(self) -> None:
        """Forget every request."""
        for request_id in (*self._armed, *(self._left or ())):
            self.clear(request_id)

    def pause(self) -> None:
        """Stop the clock. No-op when it stands."""
        if self._left is not None:
            return
        now, self._left = self._loop.time(), {}
        for request_id, (seconds, timer) in self._armed.items():
            timer.cancel()
            self._left[request_id] = (seconds, timer.when() - now)
        self._armed.clear()

    def resume(self) -> None:
        """Let the clock go on. No-op when it goes."""
        left, self._left = self._left or {}, None
        for request_id, (seconds, remaining) in left.items():
            self._arm(request_id, seconds, remaining)

    def _arm(self, request_id: int, seconds: float, remaining: float) -> None:
        timer = self._loop.call_later(remaining, self._late, seconds)
        self._armed[request_id] = (seconds, timer)

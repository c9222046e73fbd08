"""The event loop of a cell: timers, tasks and the answers of the host; it has no other descriptor."""

import asyncio
from typing import Any

from .calls import Calls
from .link import Host
from .outbox import Outbox

STUCK = (
    "this never ends: it waits for something that nothing will bring about"
    " (no call and no timer is under way)"
)


class StuckError(RuntimeError):
    """Code waits, and nothing is to come."""


class Loop(asyncio.BaseEventLoop):
    """One for each run. Where asyncio waits for descriptors, it waits for a frame."""

    def __init__(self, link: Host, outbox: Outbox, calls: Calls) -> None:
        super().__init__()
        self._selector = self
        self._link = link
        self._outbox = outbox
        self._calls = calls
        # What a run leaves behind (tasks, errors that nobody looked at) is nobody's any more.
        self.set_exception_handler(lambda loop, context: None)

    def select(self, timeout: float | None) -> list[Any]:
        """Send what waits, and take what comes until a timer is due."""
        self._outbox.flush()
        if timeout is None and not self._calls.pending:
            raise StuckError(STUCK)
        message = self._link.receive(timeout)
        if message is not None:
            self._calls.settle(message)
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

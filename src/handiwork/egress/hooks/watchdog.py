"""Ends the process when its event loop stands still: a hook that blocks cannot be asked to stop.

The kernel's timer, not a thread: code that holds the interpreter's lock would stop a thread too.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager

BEAT_SECONDS = 0.25


class Watchdog:
    """Sends this process SIGALRM, which ends it, when nobody beats for `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def beat(self) -> None:
        """Begin the time anew."""
        signal.setitimer(signal.ITIMER_REAL, self.seconds)

    def rest(self) -> None:
        """Look away."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    @contextmanager
    def limited(self) -> Iterator[None]:
        """Bound the time of what is done within."""
        self.beat()
        try:
            yield
        finally:
            self.beat()

    async def run(self) -> None:
        """Beat as long as the event loop turns."""
        try:
            while True:
                self.beat()
                await asyncio.sleep(BEAT_SECONDS)
        finally:
            self.rest()

"""How serving ends without losing work: no new work, a grace for what runs, then the rest is cut.

A session that is let go gives its item back, so that the brain queues it again at once; a call that
is cut is answered by the next start as interrupted.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Protocol

from handiwork.fleet.protocol import Fleet

LAST_SECONDS = 30.0
"""For what is left once no call runs: workspaces put to sleep, items given back."""

POLL_SECONDS = 6.0
"""For polls that are open; work that they still bring is given back."""


class Drain:
    """Where the end of serving stands. `begun`: take up nothing new. `over`: cut what still runs."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.over = asyncio.Event()

    def begin(self) -> None:
        """Take up nothing new."""
        self.begun.set()

    def hurry(self) -> None:
        """Cut what still runs."""
        self.begun.set()
        self.over.set()


class Claiming(Protocol):
    """A claim loop that ends by itself once the drain has begun."""

    @property
    def ended(self) -> asyncio.Event:
        """Set when it claims no more."""
        ...


async def drained(
    drain: Drain, fleet: Fleet, loops: Sequence[Claiming], *, grace_seconds: float
) -> None:
    """Begin the drain and wait for its end: at most the grace, and what letting go takes."""
    drain.begin()
    async with asyncio.TaskGroup() as group:
        limit = group.create_task(_hurry_later(drain, grace_seconds))
        await _ended(loops)
        ending = group.create_task(fleet.emptied())
        cutting = group.create_task(drain.over.wait())
        await asyncio.wait([ending, cutting], return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait([ending], timeout=LAST_SECONDS)
        for task in (limit, ending, cutting):
            task.cancel()


async def _hurry_later(drain: Drain, seconds: float) -> None:
    await asyncio.sleep(seconds)
    drain.hurry()


async def _ended(loops: Sequence[Claiming]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(POLL_SECONDS):
            for loop in loops:
                await loop.ended.wait()

"""Claims work of one brain while there is room for it, and places it."""

import asyncio
import contextlib
import functools
import secrets
import time
from collections.abc import Callable

from handiwork.fleet.protocol import Fleet
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    ConflictError,
    NotFoundError,
    UnauthorizedError,
)
from handiwork.model.session import WorkItem
from handiwork.observe import log
from handiwork.sessions.runner import Hands, serve

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

# A brain that answers an empty poll at once does not wait itself, so we do.
QUICK_POLL_SECONDS = 0.05
QUICK_POLL_PAUSE_SECONDS = 0.2

_RANDOM = secrets.SystemRandom()


class Dispatcher:
    """The claim loop of one brain. `state` and `reason` tell operators how it stands."""

    def __init__(
        self, hands: Hands, fleet: Fleet, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._hands = hands
        self._fleet = fleet
        self._now = now
        self._log = log.get("dispatcher").bind(environment=hands.brain.environment_id)
        self._woken = asyncio.Event()
        self.state = "starting"
        self.reason = ""

    async def run(self) -> None:
        """Claim and place until cancelled. Returns when the brain refuses us for good.

        What a former run held is gone on with first.
        """
        for kept in await self._hands.brain.resume():
            await self._place(kept)
        pause = FIRST_PAUSE_SECONDS
        while True:
            await self._fleet.wait_free()
            started = self._now()
            try:
                work = await self._hands.brain.claim()
            except BrainUnavailableError as error:
                self._hands.metrics.poll("failed")
                self._stands("waiting", str(error))
                await self._rest(_RANDOM.uniform(pause / 2, pause))
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
                continue
            except (UnauthorizedError, NotFoundError, BrainRefusedError) as error:
                self._hands.metrics.poll("refused")
                self._stands("refused", str(error))
                return
            pause = FIRST_PAUSE_SECONDS
            self._stands("polling", "")
            self._count(work)
            if work is not None:
                await self._place(work)
            elif self._now() - started < QUICK_POLL_SECONDS:
                await self._rest(QUICK_POLL_PAUSE_SECONDS)

    def wake(self) -> None:
        """End a pause between two polls."""
        self._woken.set()

    def _count(self, work: WorkItem | None) -> None:
        metrics = self._hands.metrics
        if work is None:
            metrics.poll("empty")
            return
        metrics.poll("work")
        queued = work.created_at
        metrics.claim((self._hands.clock() - queued).total_seconds() if queued else None)

    async def stop(self, session_id: str) -> bool:
        """Stop a session for the operator: its calls, and the rest of an open turn.

        The next message is served again. False when it is not being served here.
        """
        self._hands.stops.add(session_id)
        stopped = await self._fleet.stop(session_id)
        if not stopped:
            self._hands.stops.discard(session_id)
        return stopped

    async def _rest(self, seconds: float) -> None:
        self._woken.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)

    async def _place(self, work: WorkItem) -> None:
        while True:
            try:
                run = functools.partial(serve, self._hands, work)
                await self._fleet.submit(work.session_id, run)
                return
            except ConflictError:
                await self._fleet.wait_free()

    def _stands(self, state: str, reason: str) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        self.state, self.reason = state, reason
        tell = self._log.error if state == "refused" else self._log.info
        tell("claiming work", state=state, reason=reason)

"""Sessions that end at the brain while they rest here: nobody tells the hands, so they ask.

Only the brain's own word that a session is over deletes anything. One that cannot be asked, or
refuses us, leaves everything as it is.
"""

import asyncio
import time
from collections.abc import Callable, Container
from typing import Protocol

import msgspec

from handiwork.model.errors import (
    BrainUnavailableError,
    HandiworkError,
    NotFoundError,
    UnauthorizedError,
)
from handiwork.model.session import Session, SessionState
from handiwork.observe import log
from handiwork.sessions.lifecycle import Happening, step
from handiwork.sessions.polling import PollBudget
from handiwork.sessions.runner import Hands

FIRST_SECONDS = 60.0
"""A start has other things to ask first."""

MAX_SESSIONS = 10_000
"""So many of one state are looked at in a pass, the newest."""

RESTING = (
    SessionState.SLEEPING,
    SessionState.REFUSED,
    SessionState.LOST,
    SessionState.STOPPED,
)


class Serving(Protocol):
    """Who serves the sessions of the environment."""

    @property
    def serving(self) -> Container[str]:
        """The ids of those that are served."""
        ...


class Sweep:
    """Asks one environment's brain about the sessions that rest here with a sandbox's files.

    `served` tells which are served now; `polls` says how often anything may be asked.
    """

    def __init__(
        self,
        hands: Hands,
        polls: PollBudget,
        served: Serving,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hands = hands
        self._polls = polls
        self._served = served
        self._now = now
        self._log = log.get("sweep").bind(environment=hands.brain.environment_id)

    async def run(self) -> None:
        """Ask about every one, again and again, until cancelled or drained."""
        every = self._hands.settings.ask_seconds
        if every <= 0:
            return
        await asyncio.sleep(min(FIRST_SECONDS, every))
        while not self._hands.drain.begun.is_set():
            try:
                await self.once()
            except Exception:  # noqa: BLE001 - who cannot sweep now serves on, and sweeps later
                self._log.exception("sweep failed")
            await asyncio.sleep(every)

    async def once(self) -> None:
        """Ask about each once; a brain that cannot be asked ends the pass."""
        for session in await self._resting():
            await self._turn()
            if self._hands.drain.begun.is_set() or not await self._asked(session):
                return

    async def _turn(self) -> None:
        """Wait until a question is due."""
        wait = self._polls.ask_wait_seconds(self._now())
        while wait > 0:
            await asyncio.sleep(wait)
            wait = self._polls.ask_wait_seconds(self._now())

    async def _resting(self) -> list[Session]:
        found: list[Session] = []
        for state in RESTING:
            found += await self._hands.store.sessions.list(state=state.value, limit=MAX_SESSIONS)
        ours = self._hands.brain.environment_id
        return [one for one in found if one.environment_id == ours and one.sandbox_id]

    async def _asked(self, session: Session) -> bool:
        """Ask about one, and let go of it when it is over; False when the brain cannot be asked.

        What is wrong with one session only must not keep the others from their turn, nor any
        fault in here the whole process from serving.
        """
        self._polls.asked(self._now())
        try:
            reason = await self._hands.brain.ended(session.id)
        except (BrainUnavailableError, UnauthorizedError, NotFoundError) as error:
            self._failed(session, error)
            return False
        except Exception as error:  # noqa: BLE001 - the next one may be asked about all the same
            self._failed(session, error)
            return True
        try:
            if reason:
                await self._end(session.id, reason)
        except Exception as error:  # noqa: BLE001 - its sandbox, not the next one's
            self._failed(session, error)
        else:
            self._hands.metrics.asked("over" if reason else "goes_on")
        return True

    def _failed(self, session: Session, error: Exception) -> None:
        self._hands.metrics.asked("failed")
        if isinstance(error, HandiworkError):
            self._log.info("session not asked about", session=session.id, reason=str(error))
        else:
            self._log.error("a fault of ours", session=session.id, exc_info=error)

    async def _end(self, session_id: str, reason: str) -> None:
        """Delete the sandbox and write the end down, unless the session is served meanwhile."""
        hands = self._hands
        session = await hands.store.sessions.get(session_id)
        if session.state not in RESTING or session_id in self._served.serving:
            return
        move, now = step(session.state, Happening.ENDED), hands.clock()
        await hands.sandboxes.close(session.sandbox_id)
        ended = msgspec.structs.replace(
            session, state=move.state, reason=reason, waiting=(), updated_at=now
        )
        await hands.store.sessions.save(ended)
        await hands.store.sessions.record(session_id, "session.ended", {"reason": reason}, now)

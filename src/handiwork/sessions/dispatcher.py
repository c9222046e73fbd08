"""Claims work of one brain while there is room for it, and places it."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from handiwork.fleet.protocol import Fleet
from handiwork.model.environment import ClaimState
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    NotFoundError,
    UnauthorizedError,
)
from handiwork.model.session import WorkItem, served_as
from handiwork.observe import log
from handiwork.sessions.polling import PollBudget
from handiwork.sessions.runner import Hands, serve

POLLS_PER_MINUTE = 300

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
REFUSED_PAUSE_SECONDS = 60.0
"""A key that was refused may be good again: it is asked about once a minute, or when woken."""

LOOK_SECONDS = 0.5
"""So often a wait looks whether it is still needed."""

# A brain that answers an empty poll at once does not wait itself, so we do.
QUICK_POLL_SECONDS = 0.05
QUICK_POLL_PAUSE_SECONDS = 0.2

MAX_ASIDE = 256
"""So many sessions that failed are left alone without a place; those beyond them keep theirs."""

_RANDOM = secrets.SystemRandom()


class Dispatcher:
    """The claim loop of one brain. `state`, `reason` and `since` tell operators how it stands.

    `polls` is shared by all environments of a process; `full` says why there is no room, if so.
    """

    def __init__(
        self,
        hands: Hands,
        fleet: Fleet,
        *,
        polls: PollBudget | None = None,
        full: Callable[[], str] = lambda: "",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hands = hands
        self._fleet = fleet
        self._polls = polls or PollBudget(POLLS_PER_MINUTE)
        self._full = full
        self._now = now
        self._id = hands.brain.environment_id
        self._log = log.get("dispatcher").bind(environment=self._id)
        self._woken = asyncio.Event()
        self._pause = FIRST_PAUSE_SECONDS
        self._next_at = self._not_before = now()
        self._serving: set[str] = set()
        self._aside_count = 0
        self.ended = asyncio.Event()
        self.state: ClaimState = "starting"
        self.reason = ""
        self.since = hands.clock()

    @property
    def environment_id(self) -> str:
        """Return the environment whose work it claims."""
        return self._id

    @property
    def serving(self) -> tuple[str, ...]:
        """Return the sessions of this environment that are served here."""
        return tuple(sorted(self._serving))

    async def run(self) -> None:
        """Claim and place until cancelled or drained; what a former run held is gone on with first."""
        try:
            for kept in await self._hands.brain.resume():
                if await self._room():
                    await self._place(kept)
            while await self._turn() and await self._room():
                await self._claim()
        finally:
            self._polls.leave(self._id)
            self._stands("draining", "")
            self.ended.set()

    def wake(self) -> None:
        """End a pause: there may be work. What the brain itself asked to wait is waited."""
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
        stopped = await self._fleet.stop(self._place_of(session_id))
        if not stopped:
            self._hands.stops.discard(session_id)
        return stopped

    @property
    def _draining(self) -> bool:
        return self._hands.drain.begun.is_set()

    async def _turn(self) -> bool:
        """Wait until a poll is due; False when there is to be none."""
        while not self._draining:
            now = self._now()
            if self._woken.is_set():
                self._woken.clear()
                self._next_at = now
                self._polls.stir(self._id, now)
            due = max(self._next_at, self._not_before) - now
            seconds = due if due > 0 else self._polls.wait_seconds(self._id, now)
            if seconds <= 0:
                return True
            await self._nap(seconds)
        return False

    async def _room(self) -> bool:
        """Take a place in the fleet, waiting for one; False when nothing is to be taken up any more.

        What is held already and has none by then stays on record for our successor.
        """
        while not self._draining:
            reason = self._full()
            if reason:
                self._stands("full", reason)
                await asyncio.sleep(LOOK_SECONDS)
            elif await self._took():
                if not self._full():
                    return True
                self._fleet.release()
        return False

    async def _took(self) -> bool:
        """Wait in turn for a place, and say so; False when serving ends first.

        One wait, however long: who asks anew again and again is behind all who wait meanwhile.
        """
        if self._fleet.free <= 0:
            self._stands("full", "all places are taken, as many as sessions.max_sessions allows")
        async with asyncio.TaskGroup() as group:
            place = group.create_task(self._fleet.reserve())
            ending = group.create_task(self._hands.drain.begun.wait())
            await asyncio.wait((place, ending), return_when=asyncio.FIRST_COMPLETED)
            place.cancel()
            ending.cancel()
        return not place.cancelled()

    async def _claim(self) -> None:
        """Poll once, with a place taken; place what comes, or give the place back."""
        work = None
        try:
            work = await self._polled()
        finally:
            if work is None:
                self._fleet.release()
        if work is not None:
            await self._place(work)

    async def _polled(self) -> WorkItem | None:
        began = self._now()
        self._polls.polled(self._id, began)
        try:
            work = await self._hands.brain.claim()
        except BrainUnavailableError as error:
            self._hands.metrics.poll("failed")
            self._away(error)
            return None
        except (UnauthorizedError, NotFoundError, BrainRefusedError) as error:
            self._hands.metrics.poll("refused")
            self._stands("refused", str(error))
            self._polls.leave(self._id)
            self._next_at = self._now() + REFUSED_PAUSE_SECONDS
            return None
        except Exception as error:  # noqa: BLE001 - one environment's fault must not end the others
            self._hands.metrics.poll("failed")
            self._log.exception("poll failed")
            self._away(BrainUnavailableError(f"{type(error).__name__}; the log says why"))
            return None
        self._pause = FIRST_PAUSE_SECONDS
        self._stands("polling", "")
        self._count(work)
        now = self._now()
        if work is not None:
            self._polls.stir(self._id, now)
            return work
        self._polls.calm(self._id, now)
        if now - began < QUICK_POLL_SECONDS:
            self._next_at = now + QUICK_POLL_PAUSE_SECONDS
        return None

    def _away(self, error: BrainUnavailableError) -> None:
        now = self._now()
        self._stands("waiting", str(error))
        self._next_at = now + _RANDOM.uniform(self._pause / 2, self._pause)
        self._not_before = now + error.retry_seconds
        self._pause = min(self._pause * 2, LONGEST_PAUSE_SECONDS)

    async def _nap(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, LOOK_SECONDS)):
                await self._woken.wait()

    async def _place(self, work: WorkItem) -> None:
        """Have it served; from now on it counts as one that wants a sandbox."""
        session_id, sandboxes = work.session_id, self._hands.sandboxes
        known_as = self._place_of(session_id)

        async def run() -> None:
            self._serving.add(session_id)
            # Again: a former body of the session may have counted it out as it ended.
            sandboxes.expect(known_as)
            try:
                await serve(self._hands, work, lambda: self._aside(known_as))
            finally:
                sandboxes.expect_no_more(known_as)
                self._serving.discard(session_id)

        sandboxes.expect(known_as)
        await self._fleet.submit(known_as, run, reserved=True)

    @contextlib.asynccontextmanager
    async def _aside(self, known_as: str) -> AsyncIterator[None]:
        """Let others have the place of a session that is left alone, unless too many are.

        Leaving waits for room as a claim does.
        """
        self._hands.sandboxes.expect_no_more(known_as)
        many = self._aside_count >= MAX_ASIDE
        apart: AbstractAsyncContextManager[None] = (
            contextlib.nullcontext() if many else self._fleet.apart()
        )
        self._aside_count += 1
        try:
            async with apart:
                yield
        finally:
            self._aside_count -= 1
        # Others were claimed meanwhile: where they fill the machine it would be refused a sandbox.
        while not self._draining:
            if not self._full():
                break
            await asyncio.sleep(LOOK_SECONDS)
        self._hands.sandboxes.expect(known_as)

    def _place_of(self, session_id: str) -> str:
        """Return what the fleet and the sandboxes know a session of this environment by."""
        return served_as(self._id, session_id)

    def _stands(self, state: ClaimState, reason: str) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        if state != self.state:
            self.since = self._hands.clock()
        self.state, self.reason = state, reason
        tell = self._log.error if state == "refused" else self._log.info
        tell("claiming work", state=state, reason=reason)

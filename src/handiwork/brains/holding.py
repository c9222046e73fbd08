"""Holds the leases of one brain's work items: beats, writes down what a restart needs, lets go.

What goes over the wire is the adapter's: it gives a `Line`.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from handiwork.brains.lease import NO_HEARTBEAT, Beat, Held, Lease
from handiwork.model.environment import KeptLease
from handiwork.model.errors import (
    BrainUnavailableError,
    HandiworkError,
    LeaseLostError,
    sole,
)
from handiwork.model.session import WorkItem
from handiwork.observe import log
from handiwork.store.protocol import Leases

STOP_TRIES = 3
OWED_SECONDS = 2.0
STOP_SECONDS = 10.0
"""All tries together; a brain that cannot be told sees the lease lapse, or our successor's beat."""

CLAIMED_TTL_SECONDS = 300.0
"""How long the brain waits for the first beat: its lease while none was asked for."""

_FIRST_RETRY_SECONDS = 0.5
_STOP_RETRY_SECONDS = 0.2
_RANDOM = secrets.SystemRandom()


class Line(Protocol):
    """What the adapter does for a lease."""

    async def beat(self, work: WorkItem, expected: str) -> Beat:
        """Beat once. LeaseLostError: another holds it; BrainUnavailableError: no answer."""
        ...

    def lost(self, work: WorkItem) -> None:
        """Take in that the lease is gone, before the body learns of it."""
        ...

    async def end(self, work: WorkItem) -> None:
        """Stop the item for good. BrainUnavailableError: not told; other errors: refused."""
        ...


class _StopRequestedError(Exception):
    """The brain asks for the item to be stopped."""


@dataclass(frozen=True)
class Records:
    """Where leases outlive this process, and the time that the next one can compare with."""

    leases: Leases
    clock: Callable[[], datetime]


class Holding:
    """The leases of one brain. Without `records` they end with this process."""

    def __init__(self, line: Line, records: Records | None, now: Callable[[], float]) -> None:
        self._line = line
        self._records = records
        self._now = now
        self._resumed: dict[str, KeptLease] = {}
        self._owed: dict[str, tuple[WorkItem, float]] = {}
        self._log = log.get("lease")

    async def resume(self, environment_id: str) -> Sequence[WorkItem]:
        """Return the items whose leases a former run left; `hold` goes on with each."""
        kept = await self._records.leases.list() if self._records else []
        ours = {one.work.id: one for one in kept if one.work.environment_id == environment_id}
        self._resumed |= ours
        return [one.work for one in ours.values()]

    async def claimed(self, work: WorkItem) -> None:
        """Write an item down before it is acknowledged: from then on nobody else is given it."""
        if self._records is not None:
            await self._save(work, NO_HEARTBEAT, CLAIMED_TTL_SECONDS, self._records.clock())

    async def refused(self, work: WorkItem) -> None:
        """Let go of an item that the brain did not let us have."""
        if await self.stop(work):
            await self._forget(work)

    @contextlib.asynccontextmanager
    async def hold(self, work: WorkItem) -> AsyncIterator[None]:
        """Beat before the body starts and until it ends; then stop the item, unless it is lost."""
        lease = self._lease(work)
        try:
            await self._first_beat(work, lease)
            async with asyncio.TaskGroup() as group:
                beats = group.create_task(self._keep(work, lease), name=f"lease {work.id}")
                yield
                beats.cancel()
        except BaseExceptionGroup as group_error:
            error = sole(group_error)
            if lease.state is Held.LOST:
                raise LeaseLostError(f"the lease of {work.id} is lost") from None
            if not isinstance(error, _StopRequestedError):
                raise error from None
        finally:
            await self._let_go(work, lease)

    async def stop(self, work: WorkItem) -> bool:
        """Stop the item; False when the brain could not be told. What it refuses is over too."""
        try:
            async with asyncio.timeout(STOP_SECONDS):
                return await self._stop(work)
        except TimeoutError:
            self._log.info("work item not stopped", work=work.id, reason="the brain is too slow")
            return False

    async def stop_owed(self) -> None:
        """Stop what a brain that was away could not be told of; a lease that lapsed is over anyway.

        Until one of the two nobody is offered the session's next message.
        """
        for work, lapses_at in list(self._owed.values()):
            try:
                if self._now() < lapses_at:  # else it may be somebody else's by now
                    async with asyncio.timeout(OWED_SECONDS):
                        await self._line.end(work)
            except (BrainUnavailableError, TimeoutError):
                if self._now() < lapses_at:
                    return
            except HandiworkError as error:
                self._log.info("work item not stopped", work=work.id, reason=str(error))
            del self._owed[work.id]
            await self._forget(work)

    def _lease(self, work: WorkItem) -> Lease:
        kept = self._resumed.pop(work.id, None)
        if kept is None or self._records is None:
            return Lease(self._now())
        age = (self._records.clock() - kept.beaten_at).total_seconds()
        return Lease.resumed(kept.last_heartbeat, kept.ttl_seconds, age, self._now())

    async def _let_go(self, work: WorkItem, lease: Lease) -> None:
        """An item that the brain still counts as ours stays on record for our successor."""
        if lease.state is Held.LOST or await self.stop(work):
            await self._forget(work)
        else:
            self._owed[work.id] = work, self._now() + lease.ttl_seconds

    async def _forget(self, work: WorkItem) -> None:
        if self._records is not None:
            await self._records.leases.remove(work.environment_id, work.id)

    async def _first_beat(self, work: WorkItem, lease: Lease) -> None:
        while True:
            if await self._beat(work, lease):
                return
            await asyncio.sleep(
                jittered(min(_FIRST_RETRY_SECONDS, lease.retry_seconds(self._now())))
            )

    async def _keep(self, work: WorkItem, lease: Lease) -> None:
        beaten = True
        while lease.state is Held.OURS:
            # Spread, so that sessions which began together do not beat together for ever.
            wait = lease.interval_seconds * _RANDOM.uniform(0.85, 1.0)
            await asyncio.sleep(wait if beaten else lease.retry_seconds(self._now()))
            beaten = await self._beat(work, lease)
        raise _StopRequestedError

    async def _beat(self, work: WorkItem, lease: Lease) -> bool:
        """Beat once; False when the brain did not answer. LeaseLostError when the lease is gone."""
        sent_at, at = self._now(), self._records.clock() if self._records else None
        lease.silent(sent_at)
        try:
            if lease.state is Held.OURS:
                async with asyncio.timeout(lease.beat_seconds(sent_at)):
                    beat = await self._line.beat(work, lease.expected)
        except LeaseLostError:
            lease.mismatched()
            self._line.lost(work)
            raise
        except (BrainUnavailableError, TimeoutError):
            lease.silent(self._now())
            if lease.state is Held.OURS:
                return False
        if lease.state is Held.LOST:
            self._line.lost(work)
            raise LeaseLostError(f"no heartbeat of {work.id} reached the brain for a whole lease")
        lease.beaten(beat, sent_at)
        if at is not None and lease.state is Held.OURS:
            await self._save(work, lease.expected, lease.ttl_seconds, at)
        return True

    async def _save(self, work: WorkItem, beat: str, ttl_seconds: float, at: datetime) -> None:
        if self._records is not None:
            kept = KeptLease(work=work, last_heartbeat=beat, ttl_seconds=ttl_seconds, beaten_at=at)
            await self._records.leases.save(kept)

    async def _stop(self, work: WorkItem) -> bool:
        for attempt in range(STOP_TRIES):
            try:
                await self._line.end(work)
            except BrainUnavailableError as error:
                self._log.info("work item not stopped", work=work.id, reason=str(error))
                await asyncio.sleep(jittered(_STOP_RETRY_SECONDS * 2**attempt))
            except HandiworkError as error:
                self._log.info("work item not stopped", work=work.id, reason=str(error))
                return True
            else:
                return True
        return False


def jittered(seconds: float) -> float:
    """Return between half of it and all of it."""
    return _RANDOM.uniform(seconds / 2, seconds)

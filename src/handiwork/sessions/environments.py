"""How every environment stands: its claim loop, its queue as the brain counts it, our leases."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from handiwork.brains.protocol import Brain
from handiwork.model.environment import EnvironmentStatus, HeldLease, KeptLease, QueueStats
from handiwork.model.errors import HandiworkError
from handiwork.sessions.dispatcher import Dispatcher
from handiwork.store.protocol import Leases

COUNT_SECONDS = 5.0
"""A queue is counted so often at most, however many look; and a brain gets so long to count."""


@dataclass(frozen=True, kw_only=True)
class Served:
    """One environment: where it is, who counts its queue, who claims its work."""

    base_url: str
    brain: Brain
    dispatcher: Dispatcher


@dataclass(frozen=True)
class _Count:
    at: float
    queue: QueueStats | None
    error: str


class Environments:
    """All environments that this process serves."""

    def __init__(
        self,
        served: Sequence[Served],
        leases: Leases,
        *,
        clock: Callable[[], datetime],
        now: Callable[[], float],
    ) -> None:
        self._served = served
        self._leases = leases
        self._clock = clock
        self._now = now
        self._counts: dict[str, _Count] = {}

    async def status(self) -> list[EnvironmentStatus]:
        """Look at all of them; a brain that cannot be asked is told of, not raised."""
        async with asyncio.TaskGroup() as group:
            for one in self._served:
                group.create_task(self._count(one))
        kept = await self._leases.list()
        return [self._status(one, kept) for one in self._served]

    def _status(self, one: Served, kept: Sequence[KeptLease]) -> EnvironmentStatus:
        dispatcher, count = one.dispatcher, self._counts[one.dispatcher.environment_id]
        now = self._clock()
        return EnvironmentStatus(
            id=dispatcher.environment_id,
            base_url=one.base_url,
            state=dispatcher.state,
            reason=dispatcher.reason,
            since=dispatcher.since,
            queue=count.queue,
            queue_error=count.error,
            leases=tuple(
                _held(lease, now)
                for lease in kept
                if lease.work.environment_id == dispatcher.environment_id
            ),
            sessions=dispatcher.serving,
        )

    async def _count(self, one: Served) -> None:
        environment_id, now = one.dispatcher.environment_id, self._now()
        last = self._counts.get(environment_id)
        if last is not None and now - last.at < COUNT_SECONDS:
            return
        queue, error = None, ""
        try:
            async with asyncio.timeout(COUNT_SECONDS):
                queue = await one.brain.stats()
        except HandiworkError as failed:
            error = str(failed)
        except TimeoutError:
            error = f"the brain did not count its queue within {COUNT_SECONDS:g} s"
        self._counts[environment_id] = _Count(now, queue, error)


def _held(lease: KeptLease, now: datetime) -> HeldLease:
    return HeldLease(
        work_id=lease.work.id,
        session_id=lease.work.session_id,
        last_beat_seconds=round(max(0.0, (now - lease.beaten_at).total_seconds()), 3),
        ttl_seconds=lease.ttl_seconds,
    )

"""The work queues of all environments: the pure queue, kept on disk, with polls that wait.

The queue in memory changes first and at once; what changed is then written, in the same order, and
nobody is answered before it is on disk.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, select

from handiwork.brains.local.clock import Clock, NewId
from handiwork.brains.local.queue import Queue, State, Stats, WorkItem, timestamp
from handiwork.brains.local.tables import KEEP_WORK, WORK
from handiwork.model.errors import NotFoundError
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.store.database import Database

POLLER_SECONDS = 30
MAX_POLLERS = 1000
IDLE_CLOCK_SECONDS = 60.0


def work_row(item: WorkItem) -> dict[str, Any]:
    """Return the item as a row of the `work` table."""
    return {
        "id": item.id,
        "tenant_id": DEFAULT_TENANT,
        "environment_id": item.environment_id,
        "state": item.state.value,
        "created_at": timestamp(item.created_at),
        "body": msgspec.json.encode(item),
    }


def work_view(item: WorkItem, secret: str | None = None) -> dict[str, Any]:
    """Return the item as the protocol shows it; only a poll gives the secret."""

    def told(moment: datetime | None) -> str | None:
        return timestamp(moment) if moment else None

    return {
        "id": item.id,
        "type": "work",
        "environment_id": item.environment_id,
        "data": {"type": item.kind, "id": item.subject_id},
        "state": item.state.value,
        "metadata": item.metadata,
        "secret": secret,
        "created_at": timestamp(item.created_at),
        "acknowledged_at": told(item.acknowledged_at),
        "started_at": told(item.started_at),
        "latest_heartbeat_at": told(item.last_heartbeat_at),
        "stop_requested_at": told(item.stop_requested_at),
        "stopped_at": told(item.stopped_at),
    }


def decoded_work(body: bytes) -> WorkItem:
    """Return an item from its row."""
    return msgspec.json.decode(body, type=WorkItem)


class WorkQueues:
    """All queues. `open_turns` holds the sessions whose turn is open; the sessions keep it true."""

    def __init__(self, database: Database, clock: Clock, new_id: NewId) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._queues: dict[str, Queue] = {}
        self._wakes: dict[str, asyncio.Event] = {}
        self._leases_changed = asyncio.Event()
        self._pollers: dict[str, dict[str, datetime]] = {}
        self._closing = False
        self.open_turns: set[str] = set()

    async def load(self) -> None:
        """Take up the items that were live when the process ended."""

        def live(connection: Connection) -> list[WorkItem]:
            rows = connection.execute(select(WORK.c.body).where(WORK.c.state != State.STOPPED))
            return [decoded_work(row.body) for row in rows]

        for item in await self._database.read(live):
            self._queue(item.environment_id).put(item)

    def close(self) -> None:
        """Let every waiting poll return with nothing."""
        self._closing = True
        for wake in self._wakes.values():
            wake.set()

    def offer(self, environment_id: str, session_id: str) -> list[WorkItem]:
        """Queue work for a session unless it has a live item. The caller writes it, then wakes."""
        now = self._clock()
        item = WorkItem(
            id=self._new_id("work"),
            environment_id=environment_id,
            subject_id=session_id,
            created_at=now,
            available_at=now,
        )
        kept = self._queue(environment_id).put(item)
        return [kept] if kept else []

    async def add_healthcheck(self, environment_id: str) -> WorkItem:
        """Queue an item that only asks a client to acknowledge and stop it."""
        now = self._clock()
        work_id = self._new_id("work")
        item = WorkItem(
            id=work_id,
            environment_id=environment_id,
            kind="healthcheck",
            subject_id=work_id,
            created_at=now,
            available_at=now,
        )
        self._queue(environment_id).put(item)
        await self._keep(item)
        return item

    def wake(self, environment_id: str) -> None:
        """Let waiting polls look again."""
        wake = self._wakes.get(environment_id)
        if wake is not None:
            wake.set()
        self._leases_changed.set()

    async def poll(
        self, environment_id: str, *, block: timedelta, reclaim_after: timedelta, poller: str | None
    ) -> WorkItem | None:
        """Hand out the oldest item that may be had, waiting for one as long as asked."""
        queue = self._queue(environment_id)
        ends_at = self._clock() + block
        self._note_poller(environment_id, poller)
        while not self._closing:
            now = self._clock()
            item = queue.poll(now, reclaim_after)
            if item is not None:
                await self._keep(item)
                return item
            due = queue.next_claimable_at(reclaim_after)
            until = min(ends_at, due) if due else ends_at
            if until <= now:
                return None
            await self._wait(environment_id, (until - now).total_seconds())
        return None

    async def acknowledge(self, environment_id: str, work_id: str) -> WorkItem:
        """Take an item off the queue."""
        item = self._queue(environment_id).acknowledge(work_id, self._clock())
        return await self._keep(item)

    async def beat(
        self,
        environment_id: str,
        work_id: str,
        *,
        expected: str | None,
        lease_seconds: int | None,
        epoch: int | None,
    ) -> WorkItem:
        """Extend a lease for its owner."""
        item = self._queue(environment_id).beat(
            work_id,
            self._clock(),
            expected=expected,
            lease_seconds=lease_seconds,
            epoch=epoch,
        )
        return await self._keep(item)

    async def stop(self, environment_id: str, work_id: str, *, force: bool) -> WorkItem:
        """Ask the holder to stop, or end the item; an open turn gets its next item at once."""
        queue = self._queue(environment_id)
        is_open = queue.get(work_id).subject_id in self.open_turns
        changed = queue.stop(
            work_id, self._clock(), force=force, turn_open=is_open, new_id=self._new_id("work")
        )
        await self._keep(*changed)
        return changed[0]

    def end_for(self, environment_id: str, session_id: str, *, force: bool) -> list[WorkItem]:
        """Stop a session's item because the session ended. The caller writes it, then wakes."""
        queue = self._queue(environment_id)
        item = queue.live_for(session_id)
        if item is None:
            return []
        return queue.stop(item.id, self._clock(), force=force, turn_open=False, new_id="")

    async def annotate(
        self, environment_id: str, work_id: str, metadata: dict[str, str]
    ) -> WorkItem:
        """Replace the metadata of an item that is remembered."""
        return await self._keep(self._queue(environment_id).annotate(work_id, metadata))

    def remembered(self, environment_id: str, work_id: str) -> WorkItem:
        """Return a live or recent item; NotFoundError."""
        return self._queue(environment_id).get(work_id)

    def locate(self, work_id: str) -> WorkItem:
        """Return an item of any environment; NotFoundError."""
        for queue in self._queues.values():
            try:
                return queue.get(work_id)
            except NotFoundError:
                continue
        raise NotFoundError(f"work item {work_id} does not exist")

    async def get(self, environment_id: str, work_id: str) -> WorkItem:
        """Return any item that ever was; NotFoundError."""
        try:
            return self.remembered(environment_id, work_id)
        except NotFoundError:
            found = await self._database.read(
                lambda connection: connection.execute(
                    select(WORK.c.body).where(
                        WORK.c.id == work_id, WORK.c.environment_id == environment_id
                    )
                ).first()
            )
        if found is None:
            raise NotFoundError(f"work item {work_id} does not exist")
        return decoded_work(found.body)

    def stats(self, environment_id: str) -> tuple[Stats, int]:
        """Count what waits, and who polled within half a minute."""
        since = self._clock() - timedelta(seconds=POLLER_SECONDS)
        pollers = self._pollers.get(environment_id, {})
        return self._queue(environment_id).stats(), sum(1 for at in pollers.values() if at > since)

    async def watch_leases(self) -> None:
        """End leases as they lapse, for as long as the server runs."""
        while True:
            self._leases_changed.clear()
            now = self._clock()
            for environment_id, queue in list(self._queues.items()):
                changed = queue.expire(
                    now, self.open_turns.__contains__, lambda: self._new_id("work")
                )
                if changed:
                    await self._keep(*changed)
                    self.wake(environment_id)
            ends = (queue.next_expiry_at() for queue in self._queues.values())
            first = min((at for at in ends if at is not None), default=None)
            delay = (first - self._clock()).total_seconds() if first else IDLE_CLOCK_SECONDS
            await self._wait_for(self._leases_changed, delay)

    def _queue(self, environment_id: str) -> Queue:
        return self._queues.setdefault(environment_id, Queue())

    async def _keep(self, *items: WorkItem) -> WorkItem:
        rows = [work_row(item) for item in items]
        await self._database.write(lambda connection: keep_work(connection, rows))
        for item in items:
            if item.state is State.QUEUED and item.handed_out_at is None:
                self.wake(item.environment_id)
        self._leases_changed.set()
        return items[0]

    async def _wait(self, environment_id: str, seconds: float) -> None:
        wake = self._wakes.setdefault(environment_id, asyncio.Event())
        wake.clear()
        await self._wait_for(wake, seconds)

    @staticmethod
    async def _wait_for(wake: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await wake.wait()
        except TimeoutError:
            return

    def _note_poller(self, environment_id: str, poller: str | None) -> None:
        if poller is None:
            return
        pollers = self._pollers.setdefault(environment_id, {})
        pollers.pop(poller, None)
        pollers[poller] = self._clock()
        if len(pollers) > MAX_POLLERS:
            del pollers[next(iter(pollers))]


def keep_work(connection: Connection, rows: Iterable[dict[str, Any]]) -> None:
    """Write items as they are now."""
    for row in rows:
        connection.execute(KEEP_WORK, row)

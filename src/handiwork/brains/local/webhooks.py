"""Webhooks out: what a session went through, told to the endpoints that the operator registered.

A delivery is written in the same transaction as the event that it tells of, so a crash loses none;
each is tried at most three times and then dropped. Endpoints hear in no certain order. Deliveries
run beside the sessions and hold none of them up; an endpoint that is too far behind loses the
newest.
"""

import asyncio
import base64
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, insert, select, update
from standardwebhooks import Webhook

from handiwork.brains.local import documents
from handiwork.brains.local.callbacks import MAX_CONNECTIONS, Callbacks, Calls
from handiwork.brains.local.clock import Clock, NewId
from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import invalid, missing
from handiwork.brains.local.paging import Page, Query
from handiwork.brains.local.queue import timestamp
from handiwork.brains.local.tables import WEBHOOK_DELIVERIES, WEBHOOK_ENDPOINTS
from handiwork.brains.local.webhook_rules import (
    FAILING_FOR,
    Verdict,
    delay_seconds,
    verdict,
    wants,
)
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.observe import log
from handiwork.store.database import Database

MAX_ENDPOINTS = 20
MAX_WAITING = 1000
"""Deliveries that may wait for one endpoint."""
CONCURRENT = MAX_CONNECTIONS
CONCURRENT_EACH = 2
"""Attempts at one endpoint, so that a slow one leaves room for the others."""
KEY_BYTES = 32
JITTER_STEPS = 256

_log = log.get("webhooks")


class Delivery(msgspec.Struct, kw_only=True):
    """One event on its way to one endpoint."""

    id: str
    endpoint_id: str
    attempts: int
    due_at: datetime
    event_id: str
    body: bytes


class Webhooks:
    """The endpoints, and what waits for them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        new_id: NewId,
        entropy: Callable[[int], bytes],
        callbacks: Callbacks,
    ) -> None:
        self.callbacks = callbacks
        self._database = database
        self._clock = clock
        self._new_id = new_id
        self._entropy = entropy
        self._endpoints: dict[str, Document] = {}
        self._signing: dict[str, str] = {}
        self._waiting: dict[str, Delivery] = {}
        self._counts: Counter[str] = Counter()
        self._under_way: dict[str, str] = {}
        self._wake = asyncio.Event()

    async def load(self) -> None:
        """Take up endpoints and deliveries as the last process left them."""

        def read(connection: Connection) -> tuple[list[Any], list[Any]]:
            endpoints = connection.execute(select(WEBHOOK_ENDPOINTS)).all()
            return list(endpoints), list(connection.execute(select(WEBHOOK_DELIVERIES)).all())

        endpoints, deliveries = await self._database.read(read)
        for row in endpoints:
            self._endpoints[row.id] = msgspec.json.decode(row.body)
            self._signing[row.id] = row.signing_key
        for row in deliveries:
            if row.endpoint_id not in self._endpoints:
                # Written while its endpoint was being deleted.
                await self._database.write(partial(_drop_all, endpoint_id=row.endpoint_id))
                continue
            self._hold(
                Delivery(
                    id=row.id,
                    endpoint_id=row.endpoint_id,
                    attempts=row.attempts,
                    due_at=datetime.fromisoformat(row.due_at),
                    event_id=msgspec.json.decode(row.body)["id"],
                    body=row.body,
                )
            )

    async def create(self, url: str, event_types: Sequence[str]) -> Document:
        """Register an endpoint; `signing_secret` in the answer is shown this once."""
        if len(self._endpoints) >= MAX_ENDPOINTS:
            raise invalid(f"this server has {MAX_ENDPOINTS} webhook endpoints: delete one first")
        now, name = timestamp(self._clock()), self._new_id("whend")
        endpoint: Document = {
            "id": name,
            "type": "webhook_endpoint",
            "url": url,
            "event_types": sorted(set(event_types)),
            "status": "enabled",
            "disabled_reason": None,
            "failing_since": None,
            "dropped": 0,
            "created_at": now,
            "updated_at": now,
        }
        key = f"whsec_{base64.b64encode(self._entropy(KEY_BYTES)).decode()}"

        await self._database.write(
            lambda each: documents.add(each, WEBHOOK_ENDPOINTS, endpoint, signing_key=key)
        )
        self._endpoints[name], self._signing[name] = endpoint, key
        return {**endpoint, "signing_secret": key}

    def get(self, endpoint_id: str) -> Document:
        """Return an endpoint; 404."""
        if endpoint_id not in self._endpoints:
            raise missing("webhook endpoint", endpoint_id)
        return self._endpoints[endpoint_id]

    async def list(self, query: Query, page: Page) -> Document:
        """List endpoints, newest first."""
        return await documents.listed(self._database, WEBHOOK_ENDPOINTS, query, page)

    async def delete(self, endpoint_id: str) -> None:
        """Forget an endpoint with what waits for it."""
        self.get(endpoint_id)
        del self._endpoints[endpoint_id], self._signing[endpoint_id]
        self._forget_waiting(endpoint_id)

        def change(connection: Connection) -> None:
            _drop_all(connection, endpoint_id)
            of_id = WEBHOOK_ENDPOINTS.c.id == endpoint_id
            connection.execute(delete(WEBHOOK_ENDPOINTS).where(of_id))

        await self._database.write(change)

    def stage(self, session_id: str, kinds: Sequence[str]) -> Sequence[Delivery]:
        """Return what is to be delivered of a session's change; the caller keeps it, then offers."""
        staged: list[Delivery] = []
        enabled = [each for each in self._endpoints.values() if each["status"] == "enabled"]
        for kind in kinds if enabled else ():
            now, event_id = self._clock(), self._new_id("event")
            body = _body(session_id, kind, event_id, now)
            for endpoint in enabled:
                if wants(endpoint, kind) and self._has_room(endpoint, staged):
                    staged.append(
                        Delivery(
                            id=self._new_id("whdel"),
                            endpoint_id=endpoint["id"],
                            attempts=0,
                            due_at=now,
                            event_id=event_id,
                            body=body,
                        )
                    )
        return staged

    def offer(self, staged: Sequence[Delivery]) -> None:
        """Take up deliveries that are on the disk."""
        for each in staged:
            if each.endpoint_id in self._endpoints:
                self._hold(each)
        if staged:
            self._wake.set()

    async def run(self) -> None:
        """Deliver, for as long as the server runs."""
        async with self.callbacks.open() as calls, asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                now = self._clock()
                for each in self._due(now):
                    self._under_way[each.id] = each.endpoint_id
                    tasks.create_task(self._deliver(calls, each))
                await self._sleep(now)

    def _due(self, now: datetime) -> Sequence[Delivery]:
        """Return what may be tried now, the longest due first, as far as there is room."""
        busy = Counter(self._under_way.values())
        chosen: list[Delivery] = []
        for each in sorted(self._idle(), key=lambda each: each.due_at):
            if len(self._under_way) + len(chosen) >= CONCURRENT or each.due_at > now:
                break
            if busy[each.endpoint_id] < CONCURRENT_EACH:
                busy[each.endpoint_id] += 1
                chosen.append(each)
        return chosen

    def _idle(self) -> Sequence[Delivery]:
        return [each for each in self._waiting.values() if each.id not in self._under_way]

    async def _sleep(self, now: datetime) -> None:
        """Wait until the next delivery is due, or for news; what is due already waits for a place."""
        later = [each.due_at for each in self._idle() if each.due_at > now]
        seconds = (min(later) - now).total_seconds() if later else None
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _deliver(self, calls: Calls, each: Delivery) -> None:
        try:
            endpoint = self._endpoints.get(each.endpoint_id)
            if endpoint is None:
                self._release(each)
            else:
                status = await self._attempt(calls, endpoint, each)
                await self._settle(each, status)
        finally:
            self._under_way.pop(each.id, None)
            self._wake.set()

    async def _attempt(self, calls: Calls, endpoint: Document, each: Delivery) -> int | None:
        """Post once; the status of the answer; None without one."""
        now = self._clock()
        headers = {
            "content-type": "application/json",
            "user-agent": "handiwork-local-brain",
            "webhook-id": each.event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(self._signing[each.endpoint_id]).sign(
                each.event_id, now, each.body.decode()
            ),
        }
        return await calls.post(endpoint["url"], each.body, headers)

    async def _settle(self, each: Delivery, status: int | None) -> None:
        """Write what follows from an attempt."""
        each.attempts += 1
        found = verdict(status, each.attempts)
        endpoint = self._endpoints.get(each.endpoint_id)
        if endpoint is None:
            return
        self._note(endpoint, found, status)
        if endpoint["status"] != "enabled":
            await self._disable(endpoint)
        elif found is Verdict.AGAIN:
            await self._keep_for_later(each)
        else:
            self._release(each)
            await self._database.write(lambda connection: _finish(connection, each.id, endpoint))

    def _note(self, endpoint: Document, found: Verdict, status: int | None) -> None:
        """Change what is told of an endpoint's health."""
        now = self._clock()
        if found is Verdict.DONE:
            endpoint["failing_since"] = None
            return
        if endpoint["failing_since"] is None:
            endpoint["failing_since"] = timestamp(now)
        if found is Verdict.DROPPED:
            endpoint["dropped"] += 1
        failing = now - datetime.fromisoformat(endpoint["failing_since"])
        if found is Verdict.DISABLED:
            endpoint |= {"status": "disabled", "disabled_reason": f"it answered {status}"}
        elif failing > FAILING_FOR:
            hours = int(FAILING_FOR.total_seconds() // 3600)
            reason = f"it took nothing for {hours} hours"
            endpoint |= {"status": "disabled", "disabled_reason": reason}

    async def _disable(self, endpoint: Document) -> None:
        _log.warning("disabled", endpoint=endpoint["id"], reason=endpoint["disabled_reason"])
        endpoint["updated_at"] = timestamp(self._clock())
        self._forget_waiting(endpoint["id"])

        def change(connection: Connection) -> None:
            _drop_all(connection, endpoint["id"])
            documents.put(connection, WEBHOOK_ENDPOINTS, endpoint)

        await self._database.write(change)

    async def _keep_for_later(self, each: Delivery) -> None:
        jitter = self._entropy(1)[0] / JITTER_STEPS
        each.due_at = self._clock() + timedelta(seconds=delay_seconds(each.attempts, jitter))
        later = {"attempts": each.attempts, "due_at": timestamp(each.due_at)}
        query = update(WEBHOOK_DELIVERIES).where(WEBHOOK_DELIVERIES.c.id == each.id).values(**later)
        await self._database.write(lambda connection: connection.execute(query))

    def _has_room(self, endpoint: Document, staged: Sequence[Delivery]) -> bool:
        name = endpoint["id"]
        waiting = self._counts[name] + sum(1 for each in staged if each.endpoint_id == name)
        if waiting < MAX_WAITING:
            return True
        endpoint["dropped"] += 1
        return False

    def _forget_waiting(self, endpoint_id: str) -> None:
        for each in list(self._waiting.values()):
            if each.endpoint_id == endpoint_id:
                self._release(each)

    def _hold(self, each: Delivery) -> None:
        self._waiting[each.id] = each
        self._counts[each.endpoint_id] += 1

    def _release(self, each: Delivery) -> None:
        if self._waiting.pop(each.id, None) is not None:
            self._counts[each.endpoint_id] -= 1


def keep_deliveries(connection: Connection, staged: Sequence[Delivery]) -> None:
    """Write what is to be delivered."""
    rows = [
        {
            "id": each.id,
            "tenant_id": DEFAULT_TENANT,
            "endpoint_id": each.endpoint_id,
            "attempts": each.attempts,
            "due_at": timestamp(each.due_at.astimezone(UTC)),
            "body": each.body,
        }
        for each in staged
    ]
    if rows:
        connection.execute(insert(WEBHOOK_DELIVERIES), rows)


def _body(session_id: str, kind: str, event_id: str, now: datetime) -> bytes:
    return msgspec.json.encode(
        {
            "type": "event",
            "id": event_id,
            "created_at": timestamp(now),
            "data": {
                "type": kind,
                "id": session_id,
                "organization_id": "org_local",
                "workspace_id": "wrkspc_local",
            },
        }
    )


def _finish(connection: Connection, delivery_id: str, endpoint: Document) -> None:
    connection.execute(delete(WEBHOOK_DELIVERIES).where(WEBHOOK_DELIVERIES.c.id == delivery_id))
    documents.put(connection, WEBHOOK_ENDPOINTS, endpoint)


def _drop_all(connection: Connection, endpoint_id: str) -> None:
    of_endpoint = WEBHOOK_DELIVERIES.c.endpoint_id == endpoint_id
    connection.execute(delete(WEBHOOK_DELIVERIES).where(of_endpoint))

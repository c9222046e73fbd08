"""Routes of the work queue."""

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

from litestar import get, post
from sqlalchemy import Connection, select

from handiwork.brains.local import queue
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.keys import Caller, Kind
from handiwork.brains.local.paging import first, number, page
from handiwork.brains.local.queue import WorkItem, timestamp
from handiwork.brains.local.services import (
    Answer,
    AnyRequest,
    answer,
    body_of,
    caller_of,
    name_of,
    query_of,
    services_of,
)
from handiwork.brains.local.shapes import WorkStop, WorkUpdate, decode, merged
from handiwork.brains.local.tables import WORK
from handiwork.brains.local.work import decoded_work, work_view
from handiwork.model.errors import LeaseLostError

MAX_RECLAIM_MILLISECONDS = 24 * 3600 * 1000


def _caller(request: AnyRequest, *kinds: Kind) -> Caller:
    """Return who asks; 403 for another environment's key, 404 for another item's."""
    caller = caller_of(request, *kinds)
    environment_id = name_of(request, "environment_id")
    if caller.kind is Kind.ENVIRONMENT and caller.environment_id != environment_id:
        raise WireError(403, "this key belongs to another environment")
    if caller.kind is Kind.SESSIONS and caller.work_id != name_of(request, "work_id"):
        raise WireError(403, "this key belongs to another work item")
    return caller


@get("/v1/environments/{environment_id:str}/work/poll")
async def poll(request: AnyRequest) -> Answer:
    """Hand out the oldest item, or `null` when there is none within `block_ms`."""
    _caller(request, Kind.ENVIRONMENT)
    query = query_of(request)
    services = services_of(request)
    reclaim = number(query, "reclaim_older_than_ms", 0, MAX_RECLAIM_MILLISECONDS)
    polling = services.work.poll(
        name_of(request, "environment_id"),
        block=timedelta(milliseconds=number(query, "block_ms", 1, 999) or 0),
        reclaim_after=queue.RECLAIM_AFTER if reclaim is None else timedelta(milliseconds=reclaim),
        poller=request.headers.get("anthropic-worker-id"),
    )
    item = await _while_called(request, polling)
    return answer(None if item is None else work_view(item, services.keyring.secret(item)))


async def _while_called(
    request: AnyRequest, polling: Coroutine[Any, Any, WorkItem | None]
) -> WorkItem | None:
    """Poll until the caller leaves: an item handed to nobody would be missing until its reclaim."""
    await request.body()
    async with asyncio.TaskGroup() as tasks:
        work = tasks.create_task(polling)
        leaving = tasks.create_task(_left(request))
        await asyncio.wait({work, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        work.cancel()
    return None if work.cancelled() else work.result()


async def _left(request: AnyRequest) -> None:
    """Wait for the end of the connection: after the body, nothing else is received."""
    await request.receive()


@post("/v1/environments/{environment_id:str}/work/{work_id:str}/ack", status_code=200)
async def acknowledge(request: AnyRequest) -> Answer:
    """Take an item off the queue."""
    _caller(request, Kind.ENVIRONMENT, Kind.SESSIONS)
    work = services_of(request).work
    return answer(
        work_view(
            await work.acknowledge(name_of(request, "environment_id"), name_of(request, "work_id"))
        )
    )


@post("/v1/environments/{environment_id:str}/work/{work_id:str}/heartbeat", status_code=200)
async def heartbeat(request: AnyRequest) -> Answer:
    """Extend a lease; 412 when the caller does not own it."""
    caller = _caller(request, Kind.ENVIRONMENT, Kind.SESSIONS)
    query = query_of(request)
    work = services_of(request).work
    environment_id, work_id = name_of(request, "environment_id"), name_of(request, "work_id")
    try:
        item = await work.beat(
            environment_id,
            work_id,
            expected=first(query, "expected_last_heartbeat"),
            lease_seconds=number(query, "desired_ttl_seconds", 1, queue.MAX_LEASE_SECONDS),
            epoch=caller.epoch,
        )
    except LeaseLostError as lost:
        state = _lease(work.remembered(environment_id, work_id), extended=False)
        details = {"error_code": "heartbeat_precondition_failed", "current_state": state}
        raise WireError(412, str(lost), details) from None
    lease = _lease(item, extended=item.state is queue.State.ACTIVE)
    return answer({"type": "work_heartbeat", **lease})


@post("/v1/environments/{environment_id:str}/work/{work_id:str}/stop", status_code=200)
async def stop(request: AnyRequest) -> Answer:
    """Ask the holder to stop, or end the item at once; 409 when it has ended."""
    caller = _caller(request, Kind.API, Kind.ENVIRONMENT, Kind.SESSIONS)
    body = decode(await request.body(), WorkStop)
    work = services_of(request).work
    environment_id, work_id = name_of(request, "environment_id"), name_of(request, "work_id")
    epoch = work.remembered(environment_id, work_id).epoch
    if caller.kind is Kind.SESSIONS and caller.epoch != epoch:
        raise WireError(403, "the lease of this key was lost")
    return answer(work_view(await work.stop(environment_id, work_id, force=body.force)))


@get("/v1/environments/{environment_id:str}/work/stats")
async def stats(request: AnyRequest) -> Answer:
    """Count what waits."""
    _caller(request, Kind.API, Kind.ENVIRONMENT)
    counted, pollers = services_of(request).work.stats(name_of(request, "environment_id"))
    oldest = counted.oldest_queued_at
    return answer(
        {
            "type": "work_queue_stats",
            "depth": counted.depth,
            "pending": counted.pending,
            "oldest_queued_at": timestamp(oldest) if oldest else None,
            "workers_polling": pollers,
        }
    )


@get("/v1/environments/{environment_id:str}/work")
async def list_work(request: AnyRequest) -> Answer:
    """List items, newest first."""
    _caller(request, Kind.ENVIRONMENT)
    environment_id = name_of(request, "environment_id")
    wanted = page(query_of(request), limit=20, most=100, order="desc")
    column = WORK.c.created_at

    def rows(connection: Connection) -> list[tuple[str | int, object]]:
        chosen = (
            select(column, WORK.c.body)
            .where(WORK.c.environment_id == environment_id, *wanted.condition(column))
            .order_by(wanted.ordered(column))
            .limit(wanted.limit + 1)
        )
        return [(row[0], work_view(decoded_work(row[1]))) for row in connection.execute(chosen)]

    return answer(wanted.answer(await services_of(request).database.read(rows)))


@get("/v1/environments/{environment_id:str}/work/{work_id:str}")
async def get_work(request: AnyRequest) -> Answer:
    """Return an item."""
    _caller(request, Kind.API)
    work = services_of(request).work
    item = await work.get(name_of(request, "environment_id"), name_of(request, "work_id"))
    return answer(work_view(item))


@post("/v1/environments/{environment_id:str}/work/{work_id:str}", status_code=200)
async def update_work(request: AnyRequest) -> Answer:
    """Merge an item's metadata."""
    _caller(request, Kind.API)
    body = await body_of(request, WorkUpdate)
    work = services_of(request).work
    environment_id, work_id = name_of(request, "environment_id"), name_of(request, "work_id")
    metadata = merged(work.remembered(environment_id, work_id).metadata, body.metadata)
    return answer(work_view(await work.annotate(environment_id, work_id, metadata)))


@post("/v1/environments/{environment_id:str}/work/healthcheck", status_code=200)
async def add_healthcheck(request: AnyRequest) -> Answer:
    """Queue a healthcheck item: an addition of this server, for operators."""
    caller_of(request, Kind.API)
    services = services_of(request)
    environment = await services.catalog.environment(name_of(request, "environment_id"))
    return answer(work_view(await services.work.add_healthcheck(environment["id"])))


def _lease(item: WorkItem, *, extended: bool) -> dict[str, object]:
    beaten = item.last_heartbeat_at
    return {
        "last_heartbeat": timestamp(beaten) if beaten else None,
        "lease_extended": extended,
        "state": item.state.value,
        "ttl_seconds": item.lease_seconds,
    }


ROUTES = [
    poll,
    acknowledge,
    heartbeat,
    stop,
    stats,
    list_work,
    get_work,
    update_work,
    add_healthcheck,
]

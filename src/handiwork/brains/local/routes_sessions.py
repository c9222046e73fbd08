"""Routes of sessions, their events and their streams."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import delete, get, post
from litestar.types import ASGIApp, Receive, Scope, Send
from sqlalchemy import ColumnElement, Connection, Text, cast, false, func, select

from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import WireError, invalid
from handiwork.brains.local.keys import HANDS, Kind
from handiwork.brains.local.paging import every, first, flag, moments, number, page
from handiwork.brains.local.resources import attached, attachment_of, sessions_with
from handiwork.brains.local.services import (
    PING_SECONDS,
    Answer,
    AnyRequest,
    Services,
    answer,
    body_of,
    caller_of,
    query_of,
    services_of,
    session_of,
)
from handiwork.brains.local.session import Body, Progress, Session, view
from handiwork.brains.local.shapes import (
    EventsSend,
    SessionCreate,
    SessionUpdate,
    UserCustomToolResult,
    UserEvent,
    UserToolResult,
    merged,
    served,
    tools_as_kept,
)
from handiwork.brains.local.streams import Subscriber
from handiwork.brains.local.tables import EVENTS, PROGRESS, SESSIONS
from handiwork.brains.local.turn import Outcome, Turn, ended

STATUSES = ("rescheduling", "running", "idle", "terminated")
PINNED_VERSION: ColumnElement[int] = func.json_extract(
    cast(SESSIONS.c.body, Text), "$.agent.version"
)
MAX_STREAMS = 256
"""Open streams of one session."""


@post("/v1/sessions", status_code=200)
async def create_session(request: AnyRequest) -> Answer:
    """Create a session; `initial_events` open its first turn at once."""
    caller_of(request, Kind.API)
    body = await body_of(request, SessionCreate)
    services = services_of(request)
    environment = await services.catalog.environment(body.environment_id)
    if environment["archived_at"]:
        raise invalid(f"environment {body.environment_id} is archived")
    opening = served(body.initial_events, None)
    wanted = [attachment_of(each, body.environment_id) for each in body.resources]
    given = await attached(services.memories, wanted, (), services.new_id)
    await services.vaults.check(body.vault_ids)
    agent = await services.catalog.snapshot(body.agent)
    now = services.clock()
    session = Session(
        body=Body(
            id=services.new_id("sesn"),
            environment_id=body.environment_id,
            agent=agent,
            title=body.title,
            metadata=body.metadata,
            created_at=now,
            resources=given,
            vault_ids=body.vault_ids,
            budget_cents=services.loop.budget_of(agent, body.budget),
        ),
        progress=Progress(turn=Turn(), updated_at=now),
        next_position=0,
    )
    await services.journal.create(session)
    if opening:
        await services.loop.send(session, opening)
    return answer(view(session.body, session.progress))


@get("/v1/sessions")
async def list_sessions(request: AnyRequest) -> Answer:
    """List sessions, newest first."""
    caller_of(request, Kind.API)
    query = query_of(request)
    wanted = page(query, limit=20, most=100, order="desc")
    column = SESSIONS.c.created_at
    conditions = [*wanted.condition(column), *moments(query, "created_at", column)]
    if not flag(query, "include_archived"):
        conditions.append(SESSIONS.c.archived_at.is_(None))
    if statuses := every(query, "statuses"):
        _check_statuses(statuses)
        conditions.append(PROGRESS.c.status.in_(statuses))
    if agent_id := first(query, "agent_id"):
        conditions.append(SESSIONS.c.agent_id == agent_id)
        if version := number(query, "agent_version", 1, 1_000_000):
            conditions.append(PINNED_VERSION.in_([version]))
    if first(query, "deployment_id"):
        # No deployment ever made a session here, so none is one's.
        conditions.append(false())
    if store_id := first(query, "memory_store_id"):
        conditions.append(SESSIONS.c.id.in_(sessions_with(store_id)))

    def rows(connection: Connection) -> list[tuple[str | int, Any]]:
        chosen = (
            select(column, SESSIONS.c.body, PROGRESS.c.state)
            .join(PROGRESS, PROGRESS.c.session_id == SESSIONS.c.id)
            .where(*conditions)
            .order_by(wanted.ordered(column))
            .limit(wanted.limit + 1)
        )
        return [
            (
                row[0],
                view(
                    msgspec.json.decode(row[1], type=Body),
                    msgspec.json.decode(row[2], type=Progress),
                ),
            )
            for row in connection.execute(chosen)
        ]

    return answer(wanted.answer_both_ways(await services_of(request).database.read(rows)))


def _check_statuses(statuses: Sequence[str]) -> None:
    for status in statuses:
        if status not in STATUSES:
            raise invalid(f"statuses: must be of {', '.join(STATUSES)}")


@get("/v1/sessions/{session_id:str}")
async def get_session(request: AnyRequest) -> Answer:
    """Return a session."""
    session = await session_of(request, *HANDS)
    return answer(view(session.body, session.progress))


@post("/v1/sessions/{session_id:str}", status_code=200)
async def update_session(request: AnyRequest) -> Answer:
    """Change title and metadata; the agent's tools while no turn is open."""
    session = await session_of(request, Kind.API)
    change = await body_of(request, SessionUpdate)
    if session.body.archived_at:
        raise invalid(f"session {session.id} is archived")
    if change.agent is not None and change.agent.tools is not None and session.turn.open:
        raise invalid(f"session {session.id} has an open turn: its tools cannot change now")
    loop = services_of(request).loop
    most = session.body.budget_cents
    if not isinstance(change.budget, msgspec.UnsetType):
        most = loop.budget_after(session, change.budget)
    told = _changed(session.body, change)
    if most != session.body.budget_cents:
        session.body.budget_cents = most
        told["budget"] = session.budget
    if len(told) > 1:
        updated = Outcome(session.turn, [told])
        await services_of(request).journal.apply(session, updated, keep_body=True)
    await loop.reconsider(session)
    return answer(view(session.body, session.progress))


def _changed(body: Body, change: SessionUpdate) -> Document:
    """Change what is given; return the event that tells what became different."""
    told: Document = {"type": "session.updated"}
    metadata = merged(body.metadata, change.metadata)
    if metadata != body.metadata:
        body.metadata = metadata
        told["metadata"] = metadata
    if not isinstance(change.title, msgspec.UnsetType) and change.title != body.title:
        body.title = told["title"] = change.title
    tools = change.agent.tools if change.agent is not None else None
    if tools is not None:
        body.agent = told["agent"] = {**body.agent, "tools": tools_as_kept(tools)}
    return told


@post("/v1/sessions/{session_id:str}/archive", status_code=200)
async def archive_session(request: AnyRequest) -> Answer:
    """End a session for good and keep its history."""
    session = await session_of(request, Kind.API)
    services = services_of(request)
    if session.body.archived_at is None:
        services.loop.cancel(session)
        session.body.archived_at = services.clock()
        over = Outcome(ended(session.turn), [{"type": "session.status_terminated"}])
        await services.journal.apply(session, over, archived=True)
    return answer(view(session.body, session.progress))


@delete("/v1/sessions/{session_id:str}", status_code=200)
async def delete_session(request: AnyRequest) -> Answer:
    """Remove a session with its history."""
    session = await session_of(request, Kind.API)
    services = services_of(request)
    services.loop.cancel(session)
    await services.journal.delete(session)
    return answer({"id": session.id, "type": "session_deleted"})


@get("/v1/sessions/{session_id:str}/events")
async def list_events(request: AnyRequest) -> Answer:
    """List a session's events in the order they were processed."""
    return answer(await events_of(request, await session_of(request, *HANDS)))


async def events_of(request: AnyRequest, session: Session) -> Document:
    """Return the page of a session's events that the query asks for."""
    query = query_of(request)
    wanted = page(query, limit=1000, most=1000, order="asc")
    column = EVENTS.c.position
    conditions = [*wanted.condition(column), *moments(query, "created_at", EVENTS.c.created_at)]
    if types := every(query, "types"):
        conditions.append(EVENTS.c.type.in_(types))

    def rows(connection: Connection) -> list[tuple[str | int, Any]]:
        chosen = (
            select(column, EVENTS.c.body)
            .where(EVENTS.c.session_id == session.id, *conditions)
            .order_by(wanted.ordered(column))
            .limit(wanted.limit + 1)
        )
        return [(row[0], msgspec.Raw(row[1])) for row in connection.execute(chosen)]

    return wanted.answer(await services_of(request).database.read(rows))


@post("/v1/sessions/{session_id:str}/events", status_code=200)
async def send_events(request: AnyRequest) -> Answer:
    """Take events of the user or of the tools; durable when answered."""
    session = await session_of(request, *HANDS)
    body = await body_of(request, EventsSend)
    events = served(body.events, session.thread_id)
    _check_sender(request, events)
    return answer({"data": await services_of(request).loop.send(session, events)})


def _check_sender(request: AnyRequest, events: Sequence[UserEvent]) -> None:
    """Let hands post results only: a key of theirs, leaked, must not confirm a call or talk."""
    if not all(isinstance(event, UserToolResult | UserCustomToolResult) for event in events):
        try:
            caller_of(request, Kind.API)
        except WireError:
            raise WireError(
                403, "events: this key posts results of tools only; all else takes the API key"
            ) from None


@get("/v1/sessions/{session_id:str}/events/stream")
async def stream_events(request: AnyRequest) -> ASGIApp:
    """Stream what happens from now on, until the session is deleted or the client leaves."""
    return stream_of(request, await session_of(request, *HANDS))


def stream_of(request: AnyRequest, session: Session) -> ASGIApp:
    """Return the answer that streams a session; 429 where too many do."""
    services = services_of(request)
    previews = "agent.message" in every(query_of(request), "event_deltas")
    if len(session.subscribers) >= MAX_STREAMS:
        raise WireError(429, f"session {session.id} has {MAX_STREAMS} open streams")

    async def stream(_scope: Scope, receive: Receive, send: Send) -> None:
        subscriber = services.journal.subscribe(session, previews=previews)
        try:
            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(_close_when_left(receive, subscriber))
                await _send_chunks(send, subscriber)
                listening.cancel()
        finally:
            session.subscribers.discard(subscriber)

    return stream


async def _close_when_left(receive: Receive, subscriber: Subscriber) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    subscriber.close()


async def _send_chunks(send: Send, subscriber: Subscriber) -> None:
    headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async for chunk in subscriber.chunks(PING_SECONDS):
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


ROUTES = [
    create_session,
    list_sessions,
    get_session,
    update_session,
    archive_session,
    delete_session,
    list_events,
    send_events,
    stream_events,
]


def stop_streams(services: Services) -> None:
    """End all that waits, so that the server can stop."""
    services.journal.close_streams()
    services.work.close()

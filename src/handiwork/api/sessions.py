"""`/api/sessions`: look at sessions, follow their events, stop them."""

import asyncio
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, get, post
from litestar.params import FromPath, HeaderParameter, QueryParameter
from litestar.types import ASGIApp

from handiwork.api.control import Injected
from handiwork.api.streams import Emit, LiveResponse
from handiwork.model.session import Session, SessionEvent, SessionState
from handiwork.model.wire import Listing
from handiwork.store.protocol import Sessions

LOOK_SECONDS = 0.1
"""How long an event may wait before those who follow see it."""
KEEP_ALIVE_LOOKS = 150
BATCH = 500
EVENT_STREAM = "text/event-stream"

Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
After = Annotated[int, QueryParameter(ge=0)]


@get("/")
async def list_sessions(
    control: Injected,
    session_state: Annotated[SessionState | None, QueryParameter(name="state")] = None,
    limit: Limit = 100,
) -> Listing[Session]:
    """List sessions, newest first."""
    state = session_state.value if session_state else None
    return Listing(data=tuple(await control.store.sessions.list(state=state, limit=limit)))


@get("/{session_id:str}")
async def get_session(control: Injected, session_id: FromPath[str]) -> Session:
    """Tell of one session."""
    return await control.store.sessions.get(session_id)


@get("/{session_id:str}/events")
async def list_events(
    control: Injected, session_id: FromPath[str], after: After = 0, limit: Limit = 1000
) -> Listing[SessionEvent]:
    """List events with a sequence greater than `after`, in order."""
    await control.store.sessions.get(session_id)
    events = await control.store.sessions.events(session_id, after=after, limit=limit)
    return Listing(data=tuple(events))


@get("/{session_id:str}/events/stream")
async def follow_events(
    control: Injected,
    request: Request[Any, Any, Any],
    session_id: FromPath[str],
    after: After = 0,
    last_event_id: Annotated[int | None, HeaderParameter(name="Last-Event-ID", ge=0)] = None,
) -> ASGIApp:
    """Follow a session's events (SSE), those after `after` or `Last-Event-ID` first."""
    await control.store.sessions.get(session_id)
    begin = after if last_event_id is None else last_event_id

    async def body(emit: Emit) -> None:
        await _follow(control.store.sessions, session_id, begin, emit)

    return LiveResponse(body, media_type=EVENT_STREAM, stopping=request.app.state.stopping)


@post("/{session_id:str}/stop", status_code=200)
async def stop_session(control: Injected, session_id: FromPath[str]) -> Session:
    """Stop a session: its processes end, its work item is given back as stopped."""
    await control.store.sessions.get(session_id)
    await control.stop_session(session_id)
    return await control.store.sessions.get(session_id)


async def _follow(sessions: Sessions, session_id: str, after: int, emit: Emit) -> None:
    quiet = 0
    await emit(b": open\n\n")
    while True:
        events = await sessions.events(session_id, after=after, limit=BATCH)
        for event in events:
            await emit(sse(event))
            after = event.sequence
        quiet = 0 if events else quiet + 1
        if quiet == KEEP_ALIVE_LOOKS:
            quiet = 0
            await emit(b": still here\n\n")
        if len(events) < BATCH:
            await asyncio.sleep(LOOK_SECONDS)


def sse(event: SessionEvent) -> bytes:
    """Return an event as SSE; JSON has no line breaks that could end a field early."""
    data = msgspec.json.encode(event)
    return b"id: %d\nevent: session\ndata: %b\n\n" % (event.sequence, data)


routes = Router(
    "/api/sessions",
    route_handlers=[list_sessions, get_session, list_events, follow_events, stop_session],
)

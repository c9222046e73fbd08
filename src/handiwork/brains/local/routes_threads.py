"""Routes of threads: a session of this server has one, its primary thread."""

from litestar import get, post
from litestar.types import ASGIApp

from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import invalid, missing
from handiwork.brains.local.keys import HANDS, Kind
from handiwork.brains.local.paging import every, number
from handiwork.brains.local.routes_sessions import events_of, stream_of
from handiwork.brains.local.services import (
    Answer,
    AnyRequest,
    answer,
    name_of,
    query_of,
    session_of,
)
from handiwork.brains.local.session import Session, view

PATH = "/v1/sessions/{session_id:str}/threads"
THREAD = f"{PATH}/{{thread_id:str}}"


def thread_view(session: Session) -> Document:
    """Return the primary thread as the protocol shows it."""
    shown = view(session.body, session.progress)
    same = ("status", "created_at", "updated_at", "archived_at", "usage")
    return {
        "id": session.thread_id,
        "type": "session_thread",
        "session_id": session.id,
        "agent": {key: value for key, value in shown["agent"].items() if key != "multiagent"},
        "parent_thread_id": None,
        "workflow_run_id": None,
        "stats": {**shown["stats"], "startup_seconds": 0.0},
        **{key: shown[key] for key in same},
    }


async def _session(request: AnyRequest, *kinds: Kind) -> Session:
    """Return the session whose primary thread the path names; 404."""
    session = await session_of(request, *kinds)
    thread_id = name_of(request, "thread_id")
    if thread_id != session.thread_id:
        raise missing("thread", thread_id)
    return session


@get(PATH)
async def list_threads(request: AnyRequest) -> Answer:
    """List the one thread, unless its status is not asked for."""
    session = await session_of(request, *HANDS)
    query = query_of(request)
    number(query, "limit", 1, 1000)
    statuses = every(query, "statuses")
    shown = [] if statuses and session.status not in statuses else [thread_view(session)]
    return answer({"data": shown, "next_page": None})


@get(THREAD)
async def get_thread(request: AnyRequest) -> Answer:
    """Return the primary thread."""
    return answer(thread_view(await _session(request, *HANDS)))


@get(f"{THREAD}/events")
async def list_events(request: AnyRequest) -> Answer:
    """List the thread's events: all of the session's."""
    return answer(await events_of(request, await _session(request, *HANDS)))


@get(f"{THREAD}/stream")
async def stream_events(request: AnyRequest) -> ASGIApp:
    """Stream the thread's events: all of the session's."""
    return stream_of(request, await _session(request, *HANDS))


@post(f"{THREAD}/archive", status_code=200)
async def archive_thread(request: AnyRequest) -> Answer:
    """Say that a primary thread ends with its session."""
    session = await _session(request, Kind.API)
    raise invalid(
        f"thread {session.thread_id} is the primary thread: archive session {session.id} instead"
    )


ROUTES = [list_threads, get_thread, list_events, stream_events, archive_thread]

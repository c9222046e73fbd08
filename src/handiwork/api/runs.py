"""`/api/runs`: a task in, its session's events out, and at the end the answer, the files, the cost.

`POST /api/runs` with `Accept: text/event-stream` is answered with the events as they come: first
`event: run` with the record, then `event: event` for each, at last `event: run` as it ended. Else
the answer waits for the end: 200 with the whole run, or 202 when `wait_seconds` passed first. A
caller who leaves does not end the run.
"""

import asyncio
import re
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.params import FromPath, HeaderParameter, JSONBody, QueryParameter
from litestar.types import ASGIApp

from handiwork.api.control import Control, Injected
from handiwork.api.streams import Emit, LiveResponse, while_called
from handiwork.model.run import Run, RunState
from handiwork.model.wire import MAX_RUN_SECONDS, Listing, RunBody

EVENT_STREAM = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0
END_SECONDS = 30.0
"""What the record may take to be written once the events have ended."""

_EVENT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

Limit = Annotated[int, QueryParameter(ge=1, le=1000)]
Wait = Annotated[float, QueryParameter(ge=0, le=MAX_RUN_SECONDS)]
LastEventId = Annotated[str, HeaderParameter(name="Last-Event-ID", max_length=128)]


@post("/", status_code=200)
async def start_run(
    control: Injected, request: Request[Any, Any, Any], data: JSONBody[RunBody]
) -> ASGIApp:
    """Give a task to an agent, or to one made of a model."""
    run = await control.runs.start(data)
    if EVENT_STREAM in request.headers.get("accept", ""):
        return _stream(control, request, run, after="")
    run = await while_called(request, control.runs.wait(run.id, data.wait_seconds))
    ended = run.state is not RunState.RUNNING
    headers = {"location": f"/api/runs/{run.id}"}
    answer = Response(run, status_code=200 if ended else 202, headers=headers)
    return answer.to_asgi_response(None, request)


@get("/")
async def list_runs(control: Injected, limit: Limit = 100) -> Listing[Run]:
    """List runs, newest first."""
    return Listing(data=tuple(await control.store.runs.list(limit=limit)))


@get("/{run_id:str}")
async def get_run(
    control: Injected,
    request: Request[Any, Any, Any],
    run_id: FromPath[str],
    wait_seconds: Wait = 0.0,
) -> Run:
    """Tell of one run; `wait_seconds`: when it has ended, or after so many."""
    return await while_called(request, control.runs.wait(run_id, wait_seconds))


@get("/{run_id:str}/events/stream")
async def follow_run(
    control: Injected,
    request: Request[Any, Any, Any],
    run_id: FromPath[str],
    last_event_id: LastEventId = "",
) -> ASGIApp:
    """Follow a run's events (SSE) from its beginning, or after `Last-Event-ID`, to its end."""
    run = await control.store.runs.get(run_id)
    return _stream(control, request, run, after=last_event_id)


@post("/{run_id:str}/cancel", status_code=200)
async def cancel_run(control: Injected, run_id: FromPath[str]) -> Run:
    """Interrupt a run; what runs for it ends."""
    return await control.runs.cancel(run_id)


def _stream(
    control: Control, request: Request[Any, Any, Any], run: Run, *, after: str
) -> LiveResponse:
    async def body(emit: Emit) -> None:
        await emit(sse("run", run))
        async with asyncio.TaskGroup() as group:
            beats = group.create_task(_keep_alive(emit))
            async with aclosing(control.runs.events(run.id, after=after)) as events:
                async for event in events:
                    await emit(sse("event", event, event.id))
            ended = await control.runs.wait(run.id, END_SECONDS)
            beats.cancel()
        await emit(sse("run", ended))

    return LiveResponse(body, media_type=EVENT_STREAM, stopping=request.app.state.stopping)


async def _keep_alive(emit: Emit) -> None:
    while True:
        await asyncio.sleep(KEEP_ALIVE_SECONDS)
        await emit(b": still here\n\n")


def sse(name: str, data: msgspec.Struct, id: str = "") -> bytes:
    """Return a record as SSE; an id that could break the frame is left out."""
    line = b"id: %b\n" % id.encode() if _EVENT_ID.fullmatch(id) else b""
    return b"%bevent: %b\ndata: %b\n\n" % (line, name.encode(), msgspec.json.encode(data))


routes = Router("/api/runs", route_handlers=[start_run, list_runs, get_run, follow_run, cancel_run])

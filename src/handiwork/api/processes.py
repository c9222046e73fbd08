"""`/api/sandboxes/{id}/processes`: processes that outlive the call that started them."""

from typing import Annotated, Any

import msgspec
from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.types import ASGIApp

from handiwork.api.control import Injected
from handiwork.api.errors import told
from handiwork.api.exec import MAX_BODY_BYTES, NDJSON, check_texts
from handiwork.api.sandboxes import check_entries
from handiwork.api.streams import Emit, LiveResponse
from handiwork.model.errors import HandiworkError
from handiwork.model.process import ProcessDetail, ProcessRecord, ProcessState
from handiwork.model.sandbox import ExecRequest
from handiwork.model.wire import Listing, LogFrame, ProcessBody, SignalBody


@post("/", request_max_body_size=MAX_BODY_BYTES)
async def start_process(
    control: Injected, sandbox_id: FromPath[str], data: JSONBody[ProcessBody]
) -> ProcessRecord:
    """Start a process, which lives as long as its sandbox does, whoever leaves."""
    check_texts(data.argv, data.cwd, data.user)
    check_entries("env", data.env)
    request = ExecRequest(
        argv=data.argv,
        cwd=data.cwd,
        env=data.env,
        user=data.user,
        timeout_seconds=None,
        output_limit_bytes=0,
    )
    sandbox = await control.sandboxes.use(sandbox_id)
    return await control.processes.start(sandbox, request)


@get("/")
async def list_processes(control: Injected, sandbox_id: FromPath[str]) -> Listing[ProcessRecord]:
    """List those of a sandbox, newest first, also those that ended."""
    await control.store.sandboxes.get(sandbox_id)
    return Listing(data=tuple(await control.processes.list(sandbox_id)))


@get("/{process_id:str}")
async def get_process(
    control: Injected, sandbox_id: FromPath[str], process_id: FromPath[str]
) -> ProcessDetail:
    """Tell of one, and where it listens."""
    record = await control.processes.get(sandbox_id, process_id)
    if record.state is not ProcessState.RUNNING:
        return ProcessDetail(process=record)
    sandbox = await control.sandboxes.use(sandbox_id)
    return await control.processes.detail(sandbox, process_id)


@get("/{process_id:str}/logs")
async def read_logs(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    process_id: FromPath[str],
    after: Annotated[int, QueryParameter(ge=0)] = 0,
    follow: FromQuery[bool] = False,
) -> ASGIApp:
    """Stream what it wrote from a position on, as far as it is kept; with `follow` until it ends."""
    await control.processes.get(sandbox_id, process_id)

    async def body(emit: Emit) -> None:
        try:
            found = control.processes.logs(sandbox_id, process_id, after=after, follow=follow)
            async for one in found:
                if isinstance(one, ProcessRecord):
                    await emit(_line(LogFrame(process=one)))
                else:
                    await emit(_line(LogFrame(at=one.at, stream=one.stream, data=one.data)))
        except HandiworkError as error:
            await emit(_line(LogFrame(error=told(error)[1])))

    return LiveResponse(body, media_type=NDJSON, stopping=request.app.state.stopping)


@post("/{process_id:str}/signal", status_code=204)
async def signal_process(
    control: Injected,
    sandbox_id: FromPath[str],
    process_id: FromPath[str],
    data: JSONBody[SignalBody],
) -> None:
    """Signal it and all it started."""
    await _goes_on(control, sandbox_id, process_id)
    await control.processes.signal(sandbox_id, process_id, data.signal)


@delete("/{process_id:str}", status_code=204)
async def remove_process(
    control: Injected, sandbox_id: FromPath[str], process_id: FromPath[str]
) -> None:
    """Kill it with all it started, and forget it and its log."""
    await _goes_on(control, sandbox_id, process_id)
    await control.processes.remove(sandbox_id, process_id)


async def _goes_on(control: Injected, sandbox_id: str, process_id: str) -> None:
    """Let a process that runs take a signal, also where it stands still with its sandbox."""
    record = await control.processes.get(sandbox_id, process_id)
    if record.state is ProcessState.RUNNING:
        await control.sandboxes.use(sandbox_id)


def _line(frame: LogFrame) -> bytes:
    return msgspec.json.encode(frame) + b"\n"


routes = Router(
    "/api/sandboxes/{sandbox_id:str}/processes",
    route_handlers=[
        start_process,
        list_processes,
        get_process,
        read_logs,
        signal_process,
        remove_process,
    ],
)

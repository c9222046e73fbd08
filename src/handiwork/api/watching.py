"""`/api/sandboxes/{id}/files/watch`: what changes in a directory, as a stream of NDJSON frames."""

import contextlib
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, get
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.types import ASGIApp

from handiwork.api.control import Injected
from handiwork.api.errors import told
from handiwork.api.exec import NDJSON
from handiwork.api.files import sendable
from handiwork.api.streams import Emit, LiveResponse
from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import FileEvent
from handiwork.model.wire import WatchFrame


@get("/")
async def watch_files(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    path: Annotated[str, QueryParameter(min_length=1, max_length=4096)],
    recursive: FromQuery[bool] = True,
) -> ASGIApp:
    """Stream what changes from the first line on, until the directory is gone or the caller leaves."""
    sandbox = await control.sandboxes.use(sandbox_id)

    async def body(emit: Emit) -> None:
        try:
            watch = await sandbox.files.watch(path, recursive=recursive)
            with contextlib.closing(watch):
                await emit(_line(WatchFrame(directories=watch.directories)))
                async for event in watch.events():
                    await emit(_line(WatchFrame(event=_sendable(event))))
                await emit(_line(WatchFrame(gone=True)))
        except HandiworkError as error:
            await emit(_line(WatchFrame(error=told(error)[1])))

    return LiveResponse(body, media_type=NDJSON, stopping=request.app.state.stopping)


def _sendable(event: FileEvent) -> FileEvent:
    return msgspec.structs.replace(event, path=sendable(event.path))


def _line(frame: WatchFrame) -> bytes:
    return msgspec.json.encode(frame) + b"\n"


routes = Router("/api/sandboxes/{sandbox_id:str}/files/watch", route_handlers=[watch_files])

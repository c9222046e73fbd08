"""`/api/sandboxes/{id}/files`: a sandbox's files, raw and of any size.

What is read is sent as it is taken, as a download that no browser opens: it is a guest's. What is
sent is written as it comes, beside the file whose place it takes when it is whole.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.types import ASGIApp

from handiwork.api.bodies import body_of
from handiwork.api.control import Injected
from handiwork.api.streams import Emit, LiveResponse, Unfinished, while_called
from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import FileInfo
from handiwork.model.wire import MAX_LIST, MAX_STREAM_BYTES, DirectoryBody, Listing, MoveBody
from handiwork.observe import log

UNTAKEN_SECONDS = 120.0
"""So long a reader may take nothing; it holds one of the sandbox's streams meanwhile."""

MAX_OFFSET = (1 << 63) - 1

FilePath = Annotated[str, QueryParameter(min_length=1, max_length=4096)]

DOWNLOAD = {
    "content-disposition": "attachment",
    "content-security-policy": "sandbox",
}


@get("/")
async def read_file(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    path: FilePath,
    offset: Annotated[int, QueryParameter(ge=0, le=MAX_OFFSET)] = 0,
    limit_bytes: Annotated[int | None, QueryParameter(ge=0, le=MAX_OFFSET)] = None,
) -> ASGIApp:
    """Read a file, or the part of it from `offset` of at most `limit_bytes`.

    A response that fails on its way is cut off.
    """
    sandbox = await control.sandboxes.use(sandbox_id)
    pieces = sandbox.files.read_stream(path, offset=offset, limit_bytes=limit_bytes)
    first = await while_called(request, anext(pieces, b""))  # what is not there is told as such

    async def body(emit: Emit) -> None:
        async with aclosing(pieces):
            await _send(first, pieces, emit)

    return LiveResponse(
        body,
        media_type="application/octet-stream",
        stopping=request.app.state.stopping,
        whole=True,
        headers=DOWNLOAD,
    )


async def _send(first: bytes, rest: AsyncGenerator[bytes, None], emit: Emit) -> None:
    try:
        piece = first
        while piece:
            async with asyncio.timeout(UNTAKEN_SECONDS):
                await emit(piece)
            piece = await anext(rest, b"")
    except (HandiworkError, TimeoutError) as error:
        reason = str(error) or f"its reader took nothing for {UNTAKEN_SECONDS:g} s"
        log.get("api").warning("a file was cut short", reason=reason)
        raise Unfinished from error


@put("/", status_code=204, request_max_body_size=MAX_STREAM_BYTES)
async def write_file(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    path: FilePath,
    mode: Annotated[int, QueryParameter(ge=0, le=0o7777)] = 0o644,
    parents: FromQuery[bool] = True,
) -> None:
    """Write a file, whole or not at all; the body is its content. `mode` is a decimal number."""
    sandbox = await control.sandboxes.use(sandbox_id)
    await sandbox.files.write_stream(path, body_of(request), mode=mode, parents=parents)


@delete("/", status_code=204)
async def remove_file(
    control: Injected, sandbox_id: FromPath[str], path: FilePath, recursive: FromQuery[bool] = False
) -> None:
    """Remove a file, a link, or a directory."""
    sandbox = await control.sandboxes.use(sandbox_id)
    await sandbox.files.remove(path, recursive=recursive)


@get("/list")
async def list_files(
    control: Injected,
    sandbox_id: FromPath[str],
    path: FilePath,
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_LIST)] = MAX_LIST,
) -> Listing[FileInfo]:
    """List a directory by name; bytes of a name that are no UTF-8 are shown as U+FFFD."""
    sandbox = await control.sandboxes.use(sandbox_id)
    found = await sandbox.files.list(path, limit=limit)
    return Listing(data=tuple(map(_sendable, found)))


@get("/stat")
async def stat_file(
    control: Injected, sandbox_id: FromPath[str], path: FilePath, follow: FromQuery[bool] = True
) -> FileInfo:
    """Tell what a path names."""
    sandbox = await control.sandboxes.use(sandbox_id)
    return await sandbox.files.stat(path, follow=follow)


@post("/mkdir", status_code=204)
async def make_directory(
    control: Injected, sandbox_id: FromPath[str], data: JSONBody[DirectoryBody]
) -> None:
    """Make a directory."""
    sandbox = await control.sandboxes.use(sandbox_id)
    await sandbox.files.mkdir(data.path, mode=data.mode, parents=data.parents)


@post("/move", status_code=204)
async def move_file(control: Injected, sandbox_id: FromPath[str], data: JSONBody[MoveBody]) -> None:
    """Rename within the sandbox."""
    sandbox = await control.sandboxes.use(sandbox_id)
    await sandbox.files.move(data.source, data.target)


def _sendable(entry: FileInfo) -> FileInfo:
    """Return the entry with a name that JSON can carry: one file must not hide all others."""
    return msgspec.structs.replace(entry, name=sendable(entry.name))


def sendable(name: str) -> str:
    """Return a guest's name as JSON can carry it: bytes that are no UTF-8 become U+FFFD."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


routes = Router(
    "/api/sandboxes/{sandbox_id:str}/files",
    route_handlers=[
        read_file,
        write_file,
        remove_file,
        list_files,
        stat_file,
        make_directory,
        move_file,
    ],
)

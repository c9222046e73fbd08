"""`/api/sandboxes/{id}/files`: a sandbox's files, raw.

What is read is sent as a download that no browser opens: it is a guest's.
"""

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from handiwork.api.bodies import whole_body
from handiwork.api.control import Injected
from handiwork.model.sandbox import FileInfo
from handiwork.model.wire import MAX_FILE_BYTES, MAX_LIST, DirectoryBody, Listing, MoveBody

FilePath = Annotated[str, QueryParameter(min_length=1, max_length=4096)]

DOWNLOAD = {
    "content-disposition": "attachment",
    "content-security-policy": "sandbox",
}


@get("/", media_type="application/octet-stream")
async def read_file(
    control: Injected,
    sandbox_id: FromPath[str],
    path: FilePath,
    offset: Annotated[int, QueryParameter(ge=0)] = 0,
    limit_bytes: Annotated[int | None, QueryParameter(ge=0, le=MAX_FILE_BYTES)] = None,
) -> Response[bytes]:
    """Read a file, or the part of it from `offset` of at most `limit_bytes`."""
    sandbox = await control.sandboxes.use(sandbox_id)
    content = await sandbox.files.read(path, offset=offset, limit_bytes=limit_bytes)
    return Response(content, media_type="application/octet-stream", headers=DOWNLOAD)


@put("/", status_code=204, request_max_body_size=MAX_FILE_BYTES)
async def write_file(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    path: FilePath,
    mode: Annotated[int, QueryParameter(ge=0, le=0o7777)] = 0o644,
    parents: FromQuery[bool] = True,
) -> None:
    """Write a file whole; the body is its content. `mode` is a decimal number."""
    content = await whole_body(request)
    sandbox = await control.sandboxes.use(sandbox_id)
    await sandbox.files.write(path, content, mode=mode, parents=parents)


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

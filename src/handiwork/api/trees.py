"""`/api/sandboxes/{id}/files/tree`: a directory's files, or one, as a tar; out and in.

Out: the tar as it is, or NDJSON frames for who accepts them. Only these tell what was left out and
why a tar is not whole; else the response is cut off. In: the body is the tar.
"""

import contextlib
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import msgspec
from litestar import Request, Router, get, put
from litestar.params import FromPath, QueryParameter
from litestar.types import ASGIApp

from handiwork.api.bodies import body_of
from handiwork.api.control import Injected
from handiwork.api.errors import told
from handiwork.api.exec import NDJSON
from handiwork.api.files import FilePath
from handiwork.api.streams import Emit, LiveResponse, Unfinished, while_called
from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import TreeReport
from handiwork.model.wire import MAX_TREE_BYTES, MAX_TREE_ENTRIES, TreeFrame
from handiwork.observe import log
from handiwork.sandboxes.tree_streams import Inside, pack, unpack

TAR = "application/x-tar"
MostBytes = Annotated[int, QueryParameter(ge=1, le=MAX_TREE_BYTES)]
MostEntries = Annotated[int, QueryParameter(ge=1, le=MAX_TREE_ENTRIES)]
Tree = AsyncGenerator[bytes | TreeReport, None]


@get("/")
async def get_tree(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    path: FilePath,
    limit_bytes: MostBytes = MAX_TREE_BYTES,
    limit_entries: MostEntries = MAX_TREE_ENTRIES,
) -> ASGIApp:
    """Send a directory's content, or one file, as a tar; no device, and no name that leads out of it."""
    sandbox = await control.sandboxes.use(sandbox_id)
    tree = pack(sandbox, path, most_bytes=limit_bytes, most_entries=limit_entries)
    first = await while_called(request, anext(tree))  # what is not there is told as such
    framed = NDJSON in request.headers.get("accept", "")

    async def body(emit: Emit) -> None:
        async with contextlib.aclosing(tree):
            await (_framed if framed else _raw)(first, tree, emit)

    return LiveResponse(
        body,
        media_type=NDJSON if framed else TAR,
        stopping=request.app.state.stopping,
        whole=not framed,
    )


@put("/", status_code=200, request_max_body_size=MAX_TREE_BYTES)
async def put_tree(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    path: FilePath,
    limit_bytes: MostBytes = MAX_TREE_BYTES,
    limit_entries: MostEntries = MAX_TREE_ENTRIES,
) -> TreeReport:
    """Unpack a tar, not compressed, into a directory; what fails is unpacked up to there."""
    sandbox = await control.sandboxes.use(sandbox_id)
    return await unpack(
        sandbox, path, body_of(request), most_bytes=limit_bytes, most_entries=limit_entries
    )


async def _raw(first: bytes | TreeReport, tree: Tree, emit: Emit) -> None:
    try:
        async for piece in _all(first, tree):
            if isinstance(piece, bytes):
                await emit(piece)
    except HandiworkError as error:
        log.get("api").warning("a tree was cut short", reason=str(error))
        raise Unfinished from error


async def _framed(first: bytes | TreeReport, tree: Tree, emit: Emit) -> None:
    try:
        async for piece in _all(first, tree):
            if isinstance(piece, TreeReport):
                await emit(_line(TreeFrame(report=piece)))
            else:
                await emit(_line(TreeFrame(data=bytes(piece), inside=isinstance(piece, Inside))))
    except HandiworkError as error:
        await emit(_line(TreeFrame(error=told(error)[1])))


async def _all(first: bytes | TreeReport, tree: Tree) -> Tree:
    yield first
    async for piece in tree:
        yield piece


def _line(frame: TreeFrame) -> bytes:
    return msgspec.json.encode(frame) + b"\n"


routes = Router("/api/sandboxes/{sandbox_id:str}/files/tree", route_handlers=[get_tree, put_tree])

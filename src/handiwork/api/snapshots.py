"""`/api/sandboxes/{id}/snapshots`: what a sandbox wrote, kept elsewhere; and sandboxes made of that."""

import asyncio
import contextlib
from typing import Annotated, Any

from litestar import Request, Router, delete, get, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.types import ASGIApp

from handiwork.api.bodies import body_of
from handiwork.api.control import Control, Injected
from handiwork.api.protocol import Snapshots
from handiwork.api.streams import Emit, LiveResponse, while_called
from handiwork.model.errors import UnsupportedError
from handiwork.model.sandbox import SandboxRecord, limits_of
from handiwork.model.snapshot import MAX_CHANGES, Snapshot, SnapshotDiff, SnapshotState
from handiwork.model.wire import ForkBody, Listing, RollbackBody
from handiwork.sandboxes.images.upload import Upload
from handiwork.sandboxes.snapshots.archive import MAX_FILE_BYTES
from handiwork.sessions.sandbox_request import SandboxRequest

OCTETS = "application/octet-stream"
Number = Annotated[int, QueryParameter(ge=1, le=10**9)]


@get("/{sandbox_id:str}/snapshots")
async def list_snapshots(control: Injected, sandbox_id: FromPath[str]) -> SnapshotState:
    """List a sandbox's snapshots, the newest first, and tell how the last try went."""
    return await _snapshots(control).state(sandbox_id)


@post("/{sandbox_id:str}/snapshots")
async def take_snapshot(control: Injected, sandbox_id: FromPath[str]) -> Snapshot:
    """Take one now; a running sandbox is frozen while its files are read."""
    return await _snapshots(control).take(sandbox_id)


@delete("/{sandbox_id:str}/snapshots/{number:int}", status_code=204)
async def remove_snapshot(
    control: Injected, sandbox_id: FromPath[str], number: FromPath[int]
) -> None:
    """Forget one that is not pinned."""
    await _snapshots(control).remove(sandbox_id, number)


@post("/{sandbox_id:str}/snapshots/{number:int}/rollback", status_code=200)
async def rollback_sandbox(
    control: Injected,
    sandbox_id: FromPath[str],
    number: FromPath[int],
    data: JSONBody[RollbackBody],
) -> SandboxRecord:
    """Put a snapshot in the place of the sandbox's files, under today's policy."""
    return await _snapshots(control).rollback(sandbox_id, number, keep_present=data.keep_present)


@get("/{sandbox_id:str}/snapshots/diff")
async def diff_snapshots(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    before: Number,
    after: Number,
    path: Annotated[str, QueryParameter(max_length=4096)] = "",
    limit: Annotated[int, QueryParameter(ge=1, le=MAX_CHANGES)] = 1000,
) -> SnapshotDiff:
    """Tell what differs between two snapshots, below a path, as long as the caller waits for it."""
    work = _snapshots(control).diff(sandbox_id, before, after, prefix=path, limit=limit)
    return await while_called(request, work)


@put("/{sandbox_id:str}/pins/{name:str}", status_code=204)
async def pin_snapshot(
    control: Injected, sandbox_id: FromPath[str], name: FromPath[str], number: Number
) -> None:
    """Keep one under a name, in place of the one that has it."""
    await _snapshots(control).pin(sandbox_id, number, name)


@delete("/{sandbox_id:str}/pins/{name:str}", status_code=204)
async def unpin_snapshot(control: Injected, sandbox_id: FromPath[str], name: FromPath[str]) -> None:
    """Remove a name."""
    await _snapshots(control).unpin(sandbox_id, name)


@post("/{sandbox_id:str}/fork")
async def fork_sandbox(
    control: Injected, sandbox_id: FromPath[str], data: JSONBody[ForkBody]
) -> Listing[SandboxRecord]:
    """Make sandboxes of one, as it is now or of a snapshot; all that were asked for, or none."""
    made = await _snapshots(control).fork(
        sandbox_id, data.count, number=data.number, policy=data.policy, wake=data.wake
    )
    return Listing(data=tuple(made))


@get("/{sandbox_id:str}/snapshots/{number:int}/export", media_type=OCTETS)
async def export_snapshot(
    control: Injected,
    request: Request[Any, Any, Any],
    sandbox_id: FromPath[str],
    number: FromPath[int],
) -> ASGIApp:
    """Send one as a file, in clear to whoever has it; one that was cut short lacks its end."""
    pieces = _snapshots(control).export(sandbox_id, number)
    first = await anext(pieces)  # what is not there is told as such

    async def body(emit: Emit) -> None:
        async with contextlib.aclosing(pieces):
            await emit(first)
            async for piece in pieces:
                await emit(piece)

    return LiveResponse(body, media_type=OCTETS, stopping=request.app.state.stopping)


@post("/import", request_max_body_size=MAX_FILE_BYTES)
async def import_snapshot(
    control: Injected,
    request: Request[Any, Any, Any],
    tier: Annotated[str, QueryParameter(max_length=40)] = "",
    size: Annotated[str, QueryParameter(max_length=40)] = "",
    policy: Annotated[str, QueryParameter(max_length=128)] = "",
) -> SandboxRecord:
    """Make a sandbox of an exported file, which is the body; it sleeps."""
    snapshots = _snapshots(control)
    asked = SandboxRequest(tier=tier, limits=limits_of(size, None), policy=policy)
    upload = Upload(control.images.directory)
    try:
        async for piece in body_of(request):
            await asyncio.to_thread(upload.take, piece)
        return await snapshots.import_file(upload.file, upload.size, asked)
    finally:
        upload.close()


def _snapshots(control: Control) -> Snapshots:
    if control.snapshots is None:
        raise UnsupportedError("snapshots are off: set snapshots.enabled = true and start again")
    return control.snapshots


routes = Router(
    "/api/sandboxes",
    route_handlers=[
        list_snapshots,
        take_snapshot,
        remove_snapshot,
        rollback_sandbox,
        diff_snapshots,
        pin_snapshot,
        unpin_snapshot,
        fork_sandbox,
        export_snapshot,
        import_snapshot,
    ],
)

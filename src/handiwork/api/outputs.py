"""`/api/sessions/{id}/outputs`: what an agent left for its user.

Every file is sent as a download that no browser opens: it is a guest's.
"""

from litestar import Response, Router, get
from litestar.params import FromPath

from handiwork.api.control import Injected
from handiwork.api.files import DOWNLOAD
from handiwork.model.errors import NotFoundError
from handiwork.model.wire import Listing, OutputFile
from handiwork.sessions.outputs import outputs_of, read_output


@get("/")
async def list_all(control: Injected, session_id: FromPath[str]) -> Listing[OutputFile]:
    """List the files by path. A sleeping sandbox is woken, and sleeps again."""
    return Listing(data=await outputs_of(control.store, control.sandboxes, session_id))


@get("/{path:path}", media_type="application/octet-stream")
async def download(
    control: Injected, session_id: FromPath[str], path: FromPath[str]
) -> Response[bytes]:
    """Download one file."""
    session = await control.store.sessions.get(session_id)
    if not session.sandbox_id:
        raise NotFoundError(f"the session {session_id} has left nothing")
    async with control.sandboxes.lend(session.sandbox_id) as sandbox:
        content = await read_output(sandbox.files, path.removeprefix("/"))
    return Response(content, media_type="application/octet-stream", headers=DOWNLOAD)


routes = Router(
    "/api/sessions/{session_id:str}/outputs",
    route_handlers=[list_all, download],
)

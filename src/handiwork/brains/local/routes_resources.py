"""Routes of a session's resources."""

from litestar import delete, get, post
from msgspec import Raw

from handiwork.brains.local import resources
from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import invalid
from handiwork.brains.local.keys import HANDS, Kind
from handiwork.brains.local.memory_shapes import AttachmentUpdate
from handiwork.brains.local.services import (
    Answer,
    AnyRequest,
    answer,
    body_of,
    name_of,
    services_of,
    session_of,
)
from handiwork.brains.local.session import Session
from handiwork.brains.local.turn import Outcome

PATH = "/v1/sessions/{session_id:str}/resources"


async def _changeable(request: AnyRequest) -> Session:
    """Return the session of the path; 400 while its hands may hold what is attached."""
    session = await session_of(request, Kind.API)
    if session.body.archived_at:
        raise invalid(f"session {session.id} is archived")
    if session.turn.open:
        raise invalid(f"session {session.id} has an open turn: its resources cannot change now")
    return session


async def _keep(request: AnyRequest, session: Session, after: list[Document]) -> None:
    session.body.resources = after
    journal = services_of(request).journal
    await journal.keep(session)
    told: Document = {"type": "session.updated", "resources": after}
    await journal.apply(session, Outcome(session.turn, [told]))


@get(PATH)
async def list_resources(request: AnyRequest) -> Answer:
    """List all of a session's resources: they fit one page."""
    session = await session_of(request, *HANDS)
    return answer({"data": session.body.resources, "next_page": None})


@post(PATH, status_code=200)
async def add_resource(request: AnyRequest) -> Answer:
    """Attach a memory store to a session between its turns."""
    session = await _changeable(request)
    services = services_of(request)
    wanted = resources.attachment_of(Raw(await request.body()), session.body.environment_id)
    after = await resources.attached(
        services.memories, [wanted], session.body.resources, services.new_id
    )
    await _keep(request, session, after)
    return answer(after[-1])


@get(f"{PATH}/{{resource_id:str}}")
async def get_resource(request: AnyRequest) -> Answer:
    """Return a resource."""
    session = await session_of(request, *HANDS)
    return answer(resources.find(session.body.resources, name_of(request, "resource_id")))


@post(f"{PATH}/{{resource_id:str}}", status_code=200)
async def update_resource(request: AnyRequest) -> Answer:
    """Change access or instructions of an attached store."""
    session = await _changeable(request)
    found = resources.find(session.body.resources, name_of(request, "resource_id"))
    after = resources.changed(found, await body_of(request, AttachmentUpdate))
    kept = [after if each is found else each for each in session.body.resources]
    await _keep(request, session, kept)
    return answer(after)


@delete(f"{PATH}/{{resource_id:str}}", status_code=200)
async def delete_resource(request: AnyRequest) -> Answer:
    """Detach a store; what it holds stays."""
    session = await _changeable(request)
    found = resources.find(session.body.resources, name_of(request, "resource_id"))
    await _keep(request, session, [each for each in session.body.resources if each is not found])
    return answer({"id": found["id"], "type": "session_resource_deleted"})


ROUTES = [list_resources, add_resource, get_resource, update_resource, delete_resource]

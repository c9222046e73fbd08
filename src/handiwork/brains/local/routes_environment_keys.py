"""Routes of environments' keys: an addition of this server, for the service mints them by hand."""

from litestar import delete, get, post

from handiwork.brains.local.keys import Kind
from handiwork.brains.local.services import (
    Answer,
    AnyRequest,
    answer,
    body_of,
    caller_of,
    name_of,
    services_of,
)
from handiwork.brains.local.shapes import Nothing

PATH = "/v1/environments/{environment_id:str}/keys"


@post(PATH, status_code=200)
async def create_key(request: AnyRequest) -> Answer:
    """Make a key; it is shown this once."""
    caller_of(request, Kind.API)
    await body_of(request, Nothing)
    keys = services_of(request).environment_keys
    return answer(await keys.create(name_of(request, "environment_id")))


@get(PATH)
async def list_keys(request: AnyRequest) -> Answer:
    """List an environment's keys without showing any."""
    caller_of(request, Kind.API)
    keys = services_of(request).environment_keys
    return answer(await keys.list(name_of(request, "environment_id")))


@delete(f"{PATH}/{{key_id:str}}", status_code=200)
async def delete_key(request: AnyRequest) -> Answer:
    """Void a key at once."""
    caller_of(request, Kind.API)
    key_id = name_of(request, "key_id")
    keys = services_of(request).environment_keys
    await keys.delete(name_of(request, "environment_id"), key_id)
    return answer({"id": key_id, "type": "environment_key_deleted"})


ROUTES = [create_key, list_keys, delete_key]

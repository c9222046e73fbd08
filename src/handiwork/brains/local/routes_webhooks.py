"""Routes of webhook endpoints: an addition of this server, for the service registers them by hand."""

from litestar import delete, get, post

from handiwork.brains.local.errors import invalid
from handiwork.brains.local.keys import Kind
from handiwork.brains.local.paging import page
from handiwork.brains.local.services import (
    Answer,
    AnyRequest,
    answer,
    body_of,
    caller_of,
    name_of,
    query_of,
    services_of,
)
from handiwork.brains.local.shapes import WebhookCreate
from handiwork.brains.local.webhook_rules import TYPES

PATH = "/v1/webhook_endpoints"


@post(PATH, status_code=200)
async def create_endpoint(request: AnyRequest) -> Answer:
    """Register an endpoint; its signing secret is shown this once."""
    caller_of(request, Kind.API)
    body = await body_of(request, WebhookCreate)
    wanted = TYPES if body.event_types is None else body.event_types
    for kind in wanted:
        if kind not in TYPES:
            raise invalid(f"event_types: {kind[:100]!r} is none of {', '.join(sorted(TYPES))}")
    try:
        url = services_of(request).webhooks.callbacks.check(body.url)
    except ValueError as refused:
        raise invalid(str(refused)) from None
    return answer(await services_of(request).webhooks.create(url, sorted(wanted)))


@get(PATH)
async def list_endpoints(request: AnyRequest) -> Answer:
    """List endpoints, newest first."""
    caller_of(request, Kind.API)
    query = query_of(request)
    wanted = page(query, limit=20, most=100, order="desc")
    return answer(await services_of(request).webhooks.list(query, wanted))


@get(f"{PATH}/{{endpoint_id:str}}")
async def get_endpoint(request: AnyRequest) -> Answer:
    """Return an endpoint with its health."""
    caller_of(request, Kind.API)
    return answer(services_of(request).webhooks.get(name_of(request, "endpoint_id")))


@delete(f"{PATH}/{{endpoint_id:str}}", status_code=200)
async def delete_endpoint(request: AnyRequest) -> Answer:
    """Forget an endpoint with what waits for it."""
    caller_of(request, Kind.API)
    endpoint_id = name_of(request, "endpoint_id")
    await services_of(request).webhooks.delete(endpoint_id)
    return answer({"id": endpoint_id, "type": "webhook_endpoint_deleted"})


ROUTES = [create_endpoint, list_endpoints, get_endpoint, delete_endpoint]

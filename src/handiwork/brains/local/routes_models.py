"""Routes of the models that agents of this server may name."""

from litestar import get

from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import missing
from handiwork.brains.local.keys import Kind
from handiwork.brains.local.paging import first, number
from handiwork.brains.local.services import (
    Answer,
    AnyRequest,
    answer,
    caller_of,
    name_of,
    query_of,
    services_of,
)

UNKNOWN_DATE = "1970-01-01T00:00:00Z"
"""What the protocol says where nobody knows when a model came out."""


def _view(name: str) -> Document:
    return {"id": name, "type": "model", "display_name": name, "created_at": UNKNOWN_DATE}


@get("/v1/models")
async def list_models(request: AnyRequest) -> Answer:
    """List the models by name."""
    caller_of(request, Kind.API)
    query = query_of(request)
    limit = number(query, "limit", 1, 1000) or 20
    after, before = first(query, "after_id"), first(query, "before_id")
    names = [
        name
        for name in sorted(services_of(request).catalog.models)
        if (after is None or name > after) and (before is None or name < before)
    ]
    shown = names[-limit:] if before is not None else names[:limit]
    return answer(
        {
            "data": [_view(name) for name in shown],
            "has_more": len(names) > len(shown),
            "first_id": shown[0] if shown else None,
            "last_id": shown[-1] if shown else None,
        }
    )


@get("/v1/models/{model_id:path}")
async def get_model(request: AnyRequest) -> Answer:
    """Return a model."""
    caller_of(request, Kind.API)
    name = name_of(request, "model_id").lstrip("/")
    if name not in services_of(request).catalog.models:
        raise missing("model", name)
    return answer(_view(name))


ROUTES = [list_models, get_model]

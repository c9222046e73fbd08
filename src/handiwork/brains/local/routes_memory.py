"""Routes of memory stores, memories and their versions.

The API key reaches every store; the sessions key of a work item reaches those that its session
names among its resources, and writes where the resource says `read_write`. An environment's key
reaches none: it would open the memories of every session to whoever holds it.
"""

from litestar import delete, get, post

from handiwork.brains.local.errors import WireError, invalid, missing
from handiwork.brains.local.keys import Kind
from handiwork.brains.local.memories import Actor
from handiwork.brains.local.memory import MAX_SEGMENTS, MemoryRuleError, check_prefix
from handiwork.brains.local.memory_shapes import (
    MemoryCreate,
    MemoryUpdate,
    StoreCreate,
    StoreUpdate,
)
from handiwork.brains.local.paging import Page, Query, first, number, page
from handiwork.brains.local.services import (
    Answer,
    AnyRequest,
    answer,
    body_of,
    caller_of,
    held_session,
    name_of,
    query_of,
    services_of,
)

STORE = "/v1/memory_stores/{store_id:str}"
MEMORY = f"{STORE}/memories/{{memory_id:str}}"
VERSIONS = f"{STORE}/memory_versions"
FULL_PAGE = 20
"""Memories of one page that shows contents."""


async def _actor(request: AnyRequest, *, writes: bool = False) -> Actor:
    """Return who acts on the store of the path; 403 or 404 where the key may not."""
    caller = caller_of(request, Kind.API, Kind.SESSIONS)
    if caller.kind is Kind.API:
        return {"type": "api_actor", "api_key_id": caller.key_id or ""}
    session = await held_session(request, caller)
    store_id = name_of(request, "store_id")
    attached = session.body.store(store_id)
    if attached is None:
        raise missing("memory store", store_id)
    if writes and attached["access"] == "read_only":
        raise WireError(403, f"memory store {store_id} is attached read-only to this session")
    return {"type": "session_actor", "session_id": session.id}


def _view(query: Query, default: str) -> bool:
    """Say whether contents are shown; 400 for another view."""
    view = first(query, "view") or default
    if view not in ("basic", "full"):
        raise invalid("view: must be basic or full")
    return view == "full"


def _page(query: Query, *, full: bool) -> Page:
    wanted = page(query, limit=20, most=100, order="desc")
    return Page(min(wanted.limit, FULL_PAGE), wanted.order, wanted.after) if full else wanted


@post("/v1/memory_stores", status_code=200)
async def create_store(request: AnyRequest) -> Answer:
    """Create a memory store."""
    caller_of(request, Kind.API)
    body = await body_of(request, StoreCreate)
    return answer(await services_of(request).memories.create_store(body))


@get("/v1/memory_stores")
async def list_stores(request: AnyRequest) -> Answer:
    """List memory stores, newest first."""
    caller_of(request, Kind.API)
    query = query_of(request)
    wanted = page(query, limit=20, most=100, order="desc")
    return answer(await services_of(request).memories.stores(query, wanted))


@get(STORE)
async def get_store(request: AnyRequest) -> Answer:
    """Return a memory store."""
    await _actor(request)
    return answer(await services_of(request).memories.store(name_of(request, "store_id")))


@post(STORE, status_code=200)
async def update_store(request: AnyRequest) -> Answer:
    """Change a store's name, description and metadata."""
    caller_of(request, Kind.API)
    body = await body_of(request, StoreUpdate)
    memories = services_of(request).memories
    return answer(await memories.update_store(name_of(request, "store_id"), body))


@post(f"{STORE}/archive", status_code=200)
async def archive_store(request: AnyRequest) -> Answer:
    """End changes of a store for good."""
    caller_of(request, Kind.API)
    return answer(await services_of(request).memories.archive_store(name_of(request, "store_id")))


@delete(STORE, status_code=200)
async def delete_store(request: AnyRequest) -> Answer:
    """Remove a store with all it holds."""
    caller_of(request, Kind.API)
    store_id = name_of(request, "store_id")
    await services_of(request).memories.delete_store(store_id)
    return answer({"id": store_id, "type": "memory_store_deleted"})


@post(f"{STORE}/memories", status_code=200)
async def create_memory(request: AnyRequest) -> Answer:
    """Create a memory."""
    by = await _actor(request, writes=True)
    full = _view(query_of(request), "basic")
    body = await body_of(request, MemoryCreate)
    memories = services_of(request).memories
    return answer(await memories.create(name_of(request, "store_id"), body, by, full=full))


@get(f"{STORE}/memories")
async def list_memories(request: AnyRequest) -> Answer:
    """List a store's memories by path."""
    await _actor(request)
    query = query_of(request)
    full = _view(query, "basic")
    try:
        prefix = check_prefix(first(query, "path_prefix") or "/")
    except MemoryRuleError as broken:
        raise invalid(str(broken)) from None
    listed = await services_of(request).memories.list(
        name_of(request, "store_id"),
        _page(query, full=full),
        prefix=prefix,
        depth=number(query, "depth", 0, MAX_SEGMENTS) or 0,
        full=full,
    )
    return answer(listed)


@get(MEMORY)
async def get_memory(request: AnyRequest) -> Answer:
    """Return a memory."""
    await _actor(request)
    full = _view(query_of(request), "full")
    store_id, memory_id = name_of(request, "store_id"), name_of(request, "memory_id")
    return answer(await services_of(request).memories.get(store_id, memory_id, full=full))


@post(MEMORY, status_code=200)
async def update_memory(request: AnyRequest) -> Answer:
    """Change a memory's content, path or both."""
    by = await _actor(request, writes=True)
    full = _view(query_of(request), "basic")
    body = await body_of(request, MemoryUpdate)
    store_id, memory_id = name_of(request, "store_id"), name_of(request, "memory_id")
    memories = services_of(request).memories
    return answer(await memories.update(store_id, memory_id, body, by, full=full))


@delete(MEMORY, status_code=200)
async def delete_memory(request: AnyRequest) -> Answer:
    """Remove a memory; its versions stay."""
    by = await _actor(request, writes=True)
    expected = first(query_of(request), "expected_content_sha256")
    store_id, memory_id = name_of(request, "store_id"), name_of(request, "memory_id")
    await services_of(request).memories.delete(store_id, memory_id, by, expected=expected)
    return answer({"id": memory_id, "type": "memory_deleted"})


@get(VERSIONS)
async def list_versions(request: AnyRequest) -> Answer:
    """List a store's versions, newest first."""
    caller_of(request, Kind.API)
    services, store_id, query = (
        services_of(request),
        name_of(request, "store_id"),
        query_of(request),
    )
    await services.memories.store(store_id)
    full = _view(query, "basic")
    wanted = _page(query, full=full)
    return answer(await services.memory_versions.list(store_id, query, wanted, full=full))


@get(f"{VERSIONS}/{{version_id:str}}")
async def get_version(request: AnyRequest) -> Answer:
    """Return a version."""
    caller_of(request, Kind.API)
    full = _view(query_of(request), "full")
    store_id, version_id = name_of(request, "store_id"), name_of(request, "version_id")
    versions = services_of(request).memory_versions
    return answer(await versions.get(store_id, version_id, full=full))


@post(f"{VERSIONS}/{{version_id:str}}/redact", status_code=200)
async def redact_version(request: AnyRequest) -> Answer:
    """Forget what a version held."""
    by = await _actor_of_api(request)
    store_id, version_id = name_of(request, "store_id"), name_of(request, "version_id")
    return answer(await services_of(request).memory_versions.redact(store_id, version_id, by))


async def _actor_of_api(request: AnyRequest) -> Actor:
    caller_of(request, Kind.API)
    return await _actor(request)


ROUTES = [
    create_store,
    list_stores,
    get_store,
    update_store,
    archive_store,
    delete_store,
    create_memory,
    list_memories,
    get_memory,
    update_memory,
    delete_memory,
    list_versions,
    get_version,
    redact_version,
]

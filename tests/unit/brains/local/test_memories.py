"""Memories change with their versions, under preconditions and limits."""

import pytest

from handiwork.brains.local import memories as rules
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.memory import digest
from handiwork.brains.local.memory_shapes import (
    MemoryCreate,
    MemoryUpdate,
    Precondition,
    StoreCreate,
    StoreUpdate,
)
from handiwork.brains.local.paging import page

BY = {"type": "api_actor", "api_key_id": "apikey_1"}


@pytest.fixture
async def store(services):
    return (await services.memories.create_store(StoreCreate(name="notes")))["id"]


def refused(status: int, kind: str):
    def check(error: WireError) -> bool:
        return (error.status, error.kind) == (status, kind)

    return pytest.RaisesExc(WireError, check=check)


async def versions(services, store: str) -> list[str]:
    wanted = page([("limit", "100")], limit=20, most=100, order="desc")
    listed = await services.memory_versions.list(store, [], wanted, full=False)
    return [each["operation"] for each in listed["data"]]


async def make(services, store: str, path: str, content: str = "x") -> dict:
    body = MemoryCreate(path=path, content=content)
    return await services.memories.create(store, body, BY, full=False)


async def test_each_change_is_one_version_and_no_change_is_none(services, store):
    made = await make(services, store, "/a", "one")
    assert made["content_sha256"] == digest("one")
    change = MemoryUpdate(content="two", path="/b")
    after = await services.memories.update(store, made["id"], change, BY, full=True)
    assert (after["path"], after["content"], after["content_size_bytes"]) == ("/b", "two", 3)
    again = await services.memories.update(store, made["id"], change, BY, full=False)
    assert again["memory_version_id"] == after["memory_version_id"]
    await services.memories.delete(store, made["id"], BY, expected=digest("two"))
    assert await versions(services, store) == ["deleted", "modified", "created"]
    with refused(404, "not_found_error"):
        await services.memories.get(store, made["id"], full=True)


async def test_a_lost_race_changes_nothing(services, store):
    made = await make(services, store, "/a", "one")
    stale = Precondition(type="content_sha256", content_sha256=digest("other"))
    with refused(409, "memory_precondition_failed_error"):
        await services.memories.update(
            store, made["id"], MemoryUpdate(content="mine", precondition=stale), BY, full=False
        )
    with refused(409, "memory_precondition_failed_error"):
        await services.memories.delete(store, made["id"], BY, expected=digest("other"))
    assert (await services.memories.get(store, made["id"], full=True))["content"] == "one"


async def test_a_path_is_a_file_or_a_directory_and_taken_once(services, store):
    await make(services, store, "/a/b")
    other = await make(services, store, "/c")
    for path in ("/a/b", "/a", "/a/b/c"):
        with refused(409, "memory_path_conflict_error"):
            await make(services, store, path)
    with refused(409, "memory_path_conflict_error"):
        await services.memories.update(store, other["id"], MemoryUpdate(path="/a"), BY, full=False)
    moved = await services.memories.update(
        store, other["id"], MemoryUpdate(path="/c/d"), BY, full=False
    )
    assert moved["path"] == "/c/d"


async def test_an_archived_store_is_read_and_emptied_only(services, store):
    made = await make(services, store, "/a")
    archived = await services.memories.archive_store(store)
    assert archived["archived_at"]
    with refused(400, "invalid_request_error"):
        await make(services, store, "/b")
    with refused(400, "invalid_request_error"):
        await services.memories.update_store(store, StoreUpdate(name="n"))
    await services.memories.delete(store, made["id"], BY, expected=None)


async def test_memories_and_versions_have_a_limit(services, store, monkeypatch):
    monkeypatch.setattr(rules, "MAX_MEMORIES", 2)
    monkeypatch.setattr(rules, "MAX_VERSIONS", 3)
    kept = await make(services, store, "/kept")
    made = await make(services, store, "/a")
    with refused(400, "invalid_request_error"):
        await make(services, store, "/b")
    for number in range(5):
        change = MemoryUpdate(content=str(number))
        await services.memories.update(store, made["id"], change, BY, full=False)
    assert await versions(services, store) == ["modified", "modified", "created"]
    first = await services.memory_versions.get(store, kept["memory_version_id"], full=True)
    assert first["content"] == "x"


async def test_a_listing_is_paged_by_path_with_prefixes(services, store):
    for path in ("/b", "/a/1", "/a/2", "/c/d/e"):
        await make(services, store, path, path)

    async def listed(*query, **more):
        wanted = page(query, limit=20, most=100, order="asc")
        options = {"prefix": "/", "depth": 0, "full": False, **more}
        return await services.memories.list(store, wanted, **options)

    first = await listed(("limit", "3"), depth=1)
    assert [each["path"] for each in first["data"]] == ["/a/", "/b", "/c/"]
    assert first["next_page"] is None
    start = await listed(("limit", "3"), full=True)
    assert [each["content"] for each in start["data"]] == ["/a/1", "/a/2", "/b"]
    rest = await listed(("limit", "3"), ("page", start["next_page"]))
    assert [(each["path"], each["content"]) for each in rest["data"]] == [("/c/d/e", None)]


async def test_deleting_a_store_takes_all_of_it(services, store):
    made = await make(services, store, "/a")
    await services.memories.delete_store(store)
    with refused(404, "not_found_error"):
        await services.memories.store(store)
    with refused(404, "not_found_error"):
        await services.memory_versions.get(store, made["memory_version_id"], full=False)

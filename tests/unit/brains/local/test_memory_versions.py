"""History is filtered, and what was redacted is gone."""

import pytest
from sqlalchemy import select

from handiwork.brains.local.errors import WireError
from handiwork.brains.local.memory_shapes import MemoryCreate, MemoryUpdate, StoreCreate
from handiwork.brains.local.paging import page
from handiwork.brains.local.tables import MEMORY_VERSIONS

API = {"type": "api_actor", "api_key_id": "apikey_1"}
AGENT = {"type": "session_actor", "session_id": "sesn_1"}


@pytest.fixture
async def memory(services):
    store = (await services.memories.create_store(StoreCreate(name="n")))["id"]
    body = MemoryCreate(path="/a", content="secret one")
    made = await services.memories.create(store, body, API, full=False)
    return await services.memories.update(
        store, made["id"], MemoryUpdate(content="two"), AGENT, full=False
    )


async def listed(services, memory, *query):
    wanted = page(query, limit=20, most=100, order="desc")
    found = await services.memory_versions.list(memory["memory_store_id"], query, wanted, full=True)
    return [(each["operation"], each["content"]) for each in found["data"]]


async def test_versions_are_found_by_author_memory_and_operation(services, memory):
    both = [("modified", "two"), ("created", "secret one")]
    assert await listed(services, memory) == both
    assert await listed(services, memory, ("memory_id", memory["id"])) == both
    assert await listed(services, memory, ("session_id", "sesn_1")) == both[:1]
    assert await listed(services, memory, ("api_key_id", "apikey_1")) == both[1:]
    assert await listed(services, memory, ("operation", "created")) == both[1:]
    assert await listed(services, memory, ("service_account_id", "svac_1")) == []
    assert await listed(services, memory, ("limit", "1")) == both[:1]


async def test_a_redacted_version_is_nowhere_in_the_database(services, memory):
    store = memory["memory_store_id"]
    versions = services.memory_versions
    wanted = page([("operation", "created")], limit=20, most=100, order="desc")
    found = await versions.list(store, [("operation", "created")], wanted, full=False)
    [first] = found["data"]
    redacted = await versions.redact(store, first["id"], API)
    assert redacted["redacted_by"] == API
    assert (redacted["content"], redacted["path"], redacted["content_sha256"]) == (None,) * 3
    assert await versions.redact(store, first["id"], AGENT) == redacted
    rows = await services.database.read(
        lambda each: each.execute(select(MEMORY_VERSIONS.c.body, MEMORY_VERSIONS.c.content)).all()
    )
    assert "secret one" not in str(rows)


async def test_what_a_memory_holds_now_is_not_redacted(services, memory):
    with pytest.raises(WireError, match="change or delete the memory first"):
        await services.memory_versions.redact(
            memory["memory_store_id"], memory["memory_version_id"], API
        )

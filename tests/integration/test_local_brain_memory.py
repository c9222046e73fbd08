"""Memory stores through the unmodified SDK, sync and async, against the real process."""

import base64
import hashlib
import json

import anthropic
import pytest

from brain_clients import KINDS, brain_client
from brain_process import TOOLSET, BrainProcess, call, script


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as process:
        yield process


@pytest.fixture(params=KINDS)
async def client(brain, request):
    async with brain_client(brain, request.param) as made:
        yield made


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def told(error: pytest.ExceptionInfo) -> str:
    return error.value.body["error"]["type"]


async def test_a_store_is_managed(client):
    made = await client(
        lambda sdk: sdk.beta.memory_stores.create(name="Notes", metadata={"a": "1", "b": "2"})
    )
    assert (made.type, made.description, made.archived_at) == ("memory_store", "", None)
    changed = await client(
        lambda sdk: sdk.beta.memory_stores.update(made.id, description="d", metadata={"a": None})
    )
    assert (changed.description, changed.metadata) == ("d", {"b": "2"})
    assert await client(lambda sdk: sdk.beta.memory_stores.retrieve(made.id)) == changed
    listed = await client.all(lambda sdk: sdk.beta.memory_stores.list(limit=1))
    assert made.id in [each.id for each in listed]
    assert (await client(lambda sdk: sdk.beta.memory_stores.archive(made.id))).archived_at
    listed = await client.all(lambda sdk: sdk.beta.memory_stores.list())
    assert made.id not in [each.id for each in listed]
    gone = await client(lambda sdk: sdk.beta.memory_stores.delete(made.id))
    assert gone.type == "memory_store_deleted"
    with pytest.raises(anthropic.NotFoundError):
        await client(lambda sdk: sdk.beta.memory_stores.retrieve(made.id))


async def test_memories_and_their_history(client):
    store = (await client(lambda sdk: sdk.beta.memory_stores.create(name="n"))).id
    made = await client(
        lambda sdk: sdk.beta.memory_stores.memories.create(store, path="/a/b", content="one")
    )
    assert (made.content, made.content_sha256, made.path) == (None, sha("one"), "/a/b")

    def update(digest, **change):
        return lambda sdk: sdk.beta.memory_stores.memories.update(
            made.id,
            memory_store_id=store,
            precondition={"type": "content_sha256", "content_sha256": digest},
            **change,
        )

    after = await client(update(sha("one"), content="two", path="/c", view="full"))
    assert (after.content, after.path, after.id) == ("two", "/c", made.id)
    with pytest.raises(anthropic.ConflictError) as lost:
        await client(update(sha("one"), content="three"))
    assert told(lost) == "memory_precondition_failed_error"
    with pytest.raises(anthropic.ConflictError) as taken:
        await client(
            lambda sdk: sdk.beta.memory_stores.memories.create(store, path="/c", content="")
        )
    assert told(taken) == "memory_path_conflict_error"
    versions = sorted(
        await client.all(
            lambda sdk: sdk.beta.memory_stores.memory_versions.list(store, limit=1, view="full")
        ),
        key=lambda version: version.created_at,
    )
    assert [(each.operation, each.content) for each in versions] == [
        ("created", "one"),
        ("modified", "two"),
    ]
    assert versions[0].created_by.type == "api_actor"
    redacted = await client(
        lambda sdk: sdk.beta.memory_stores.memory_versions.redact(
            versions[0].id, memory_store_id=store
        )
    )
    assert (redacted.content, bool(redacted.redacted_at)) == (None, True)
    with pytest.raises(anthropic.ConflictError):
        await client(
            lambda sdk: sdk.beta.memory_stores.memories.delete(
                made.id, memory_store_id=store, expected_content_sha256=sha("one")
            )
        )
    gone = await client(
        lambda sdk: sdk.beta.memory_stores.memories.delete(made.id, memory_store_id=store)
    )
    assert gone.type == "memory_deleted"


async def test_lists_by_prefix_depth_and_page(client):
    store = (await client(lambda sdk: sdk.beta.memory_stores.create(name="n"))).id
    for path in ("/b", "/a/1", "/a/2/x", "/c"):
        await client(
            lambda sdk, path=path: sdk.beta.memory_stores.memories.create(
                store, path=path, content=path
            )
        )

    async def listed(**query):
        found = await client.all(
            lambda sdk: sdk.beta.memory_stores.memories.list(store, limit=2, **query)
        )
        return [(each.type, each.path) for each in found]

    assert await listed(depth=1) == [
        ("memory_prefix", "/a/"),
        ("memory", "/b"),
        ("memory", "/c"),
    ]
    assert await listed(path_prefix="/a/") == [("memory", "/a/1"), ("memory", "/a/2/x")]
    whole = await client.all(
        lambda sdk: sdk.beta.memory_stores.memories.list(store, view="full", limit=1)
    )
    assert [each.content for each in whole] == ["/a/1", "/a/2/x", "/b", "/c"]


@pytest.mark.parametrize(
    ("path", "content"),
    [("a", ""), ("/../x", ""), ("/a\x00", ""), ("/a", "é" * 51_201), ("/" + "x/" * 20 + "x", "")],
)
async def test_what_breaks_a_rule_is_refused(client, path, content):
    store = (await client(lambda sdk: sdk.beta.memory_stores.create(name="n"))).id
    with pytest.raises(anthropic.BadRequestError):
        await client(
            lambda sdk: sdk.beta.memory_stores.memories.create(store, path=path, content=content)
        )


async def test_a_session_mounts_stores_and_its_key_reaches_them(brain, client):
    store = (await client(lambda sdk: sdk.beta.memory_stores.create(name="User Prefs"))).id
    agent = await client(
        lambda sdk: sdk.beta.agents.create(
            name="a",
            model="scripted",
            system=script(call("bash", command="x")),
            tools=[TOOLSET],
        )
    )
    session = await client(
        lambda sdk: sdk.beta.sessions.create(
            agent=agent.id,
            environment_id=brain.environment_id,
            resources=[{"type": "memory_store", "memory_store_id": store, "instructions": "i"}],
            initial_events=[{"type": "user.message", "content": [{"type": "text", "text": "go"}]}],
        )
    )
    [resource] = session.resources
    assert (resource.mount_path, resource.access) == ("/mnt/memory/user-prefs", "read_write")
    [listed] = await client.all(lambda sdk: sdk.beta.sessions.resources.list(session.id))
    assert listed == resource
    found = await client.all(lambda sdk: sdk.beta.sessions.list(memory_store_id=store))
    assert [each.id for each in found] == [session.id]
    key = await _sessions_key(brain, session.id)
    async with brain_client(brain, "async", key) as hands:
        made = await hands(
            lambda sdk: sdk.beta.memory_stores.memories.create(store, path="/x", content="c")
        )
    async with brain_client(brain, "async", brain.environment_key) as other:
        with pytest.raises(anthropic.PermissionDeniedError):
            await other(
                lambda sdk: sdk.beta.memory_stores.memories.retrieve(made.id, memory_store_id=store)
            )
    await client(lambda sdk: sdk.beta.sessions.delete(session.id))


async def _sessions_key(brain, session_id: str) -> str:
    async with brain_client(brain, "async", brain.environment_key) as hands:
        for _ in range(20):
            work = await hands(
                lambda sdk: sdk.beta.environments.work.poll(brain.environment_id, block_ms=500)
            )
            if work is not None and work.data.id == session_id:
                secret = json.loads(base64.urlsafe_b64decode(work.secret + "=="))
                return secret["sessions_token"]
    raise AssertionError("no work")


async def test_stores_survive_a_crash(tmp_path):
    with BrainProcess.start(tmp_path / "brain.db") as brain:
        async with brain_client(brain, "async") as client:
            store = await client(lambda sdk: sdk.beta.memory_stores.create(name="n"))
            made = await client(
                lambda sdk: sdk.beta.memory_stores.memories.create(
                    store.id, path="/a", content="kept"
                )
            )
            brain.kill()
            brain.restart()
            held = await client(
                lambda sdk: sdk.beta.memory_stores.memories.retrieve(
                    made.id, memory_store_id=store.id
                )
            )
            versions = await client.all(
                lambda sdk: sdk.beta.memory_stores.memory_versions.list(store.id)
            )
        assert held.content == "kept"
        assert [each.id for each in versions] == [made.memory_version_id]

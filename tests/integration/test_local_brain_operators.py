"""What an operator does with the unmodified SDK: keys, models, threads; and what is refused how."""

import anthropic
import pytest

from brain_clients import KINDS, brain_client
from brain_process import BrainProcess, script

BETA = {"anthropic-beta": "managed-agents-2026-04-01"}


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as process:
        yield process


@pytest.fixture(params=KINDS)
async def client(brain, request):
    async with brain_client(brain, request.param) as made:
        yield made


async def raw(client, method: str, path: str, **body):
    """Make a call that the SDK has no name for."""
    options = {"headers": BETA}
    if method == "post":
        return await client(
            lambda sdk: sdk.post(path, cast_to=object, body=body or None, options=options)
        )
    return await client(lambda sdk: getattr(sdk, method)(path, cast_to=object, options=options))


async def make_session(client, environment_id: str):
    agent = await client(
        lambda sdk: sdk.beta.agents.create(name="a", model="scripted", system=script({"say": "x"}))
    )
    return await client(
        lambda sdk: sdk.beta.sessions.create(agent=agent.id, environment_id=environment_id)
    )


async def test_an_environment_gets_keys_that_rotate(brain, client):
    made = await client(
        lambda sdk: sdk.beta.environments.create(name="keys", config={"type": "self_hosted"})
    )
    path = f"/v1/environments/{made.id}/keys"
    old, new = await raw(client, "post", path), await raw(client, "post", path)
    for key in (old, new):
        async with brain_client(brain, "async", key["key"]) as hands:
            assert await hands(lambda sdk: sdk.beta.environments.work.poll(made.id)) is None
    await raw(client, "delete", f"{path}/{old['id']}")
    async with brain_client(brain, "async", old["key"]) as hands:
        with pytest.raises(anthropic.AuthenticationError):
            await hands(lambda sdk: sdk.beta.environments.work.poll(made.id))
    listed = await raw(client, "get", path)
    assert [each["id"] for each in listed["data"]] == [new["id"]]
    await client(lambda sdk: sdk.beta.environments.delete(made.id))


async def test_models_are_listed(client):
    assert [m.id for m in await client.all(lambda sdk: sdk.beta.models.list(limit=1))] == [
        "scripted"
    ]
    assert (await client(lambda sdk: sdk.models.retrieve("scripted"))).id == "scripted"


async def test_a_session_has_its_primary_thread(brain, client):
    session = await make_session(client, brain.environment_id)
    [thread] = await client.all(lambda sdk: sdk.beta.sessions.threads.list(session.id))
    found = await client(
        lambda sdk: sdk.beta.sessions.threads.retrieve(thread.id, session_id=session.id)
    )
    assert (found.id, found.status, found.agent.id) == (thread.id, "idle", session.agent.id)
    await client(lambda sdk: sdk.beta.sessions.update(session.id, title="t"))
    events = await client.all(
        lambda sdk: sdk.beta.sessions.threads.events.list(thread.id, session_id=session.id)
    )
    assert [(each.type, each.title) for each in events] == [("session.updated", "t")]
    with pytest.raises(anthropic.BadRequestError, match="primary thread"):
        await client(
            lambda sdk: sdk.beta.sessions.threads.archive(thread.id, session_id=session.id)
        )


async def test_lists_of_sessions_lead_both_ways(brain, client):
    for _ in range(3):
        await make_session(client, brain.environment_id)

    async def page(cursor=None):
        more = {"page": cursor} if cursor else {}
        return await client(lambda sdk: sdk.beta.sessions.list(limit=2, **more))

    first = await page()
    second = await page(first.next_page)
    back = await page(second.prev_page)
    assert [s.id for s in back.data] == [s.id for s in first.data]
    assert first.prev_page is None


async def test_a_deleted_sessions_stream_ends_with_its_deletion(brain):
    async with brain_client(brain, "async") as client:
        session = await make_session(client, brain.environment_id)
        stream = await client.sdk.beta.sessions.events.stream(session.id)
        await client.sdk.beta.sessions.delete(session.id)
        assert [event.type async for event in stream] == ["session.deleted"]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda sdk: sdk.beta.files.list(), "does not serve /v1/files"),
        (lambda sdk: sdk.beta.deployments.list(), "does not serve /v1/deployments"),
        (lambda sdk: sdk.beta.dreams.list(), "does not serve /v1/dreams"),
        (lambda sdk: sdk.beta.tunnels.list(), "does not serve /v1/tunnels"),
        (
            lambda sdk: sdk.messages.create(model="m", max_tokens=1, messages=[]),
            "does not serve /v1/messages",
        ),
        (lambda sdk: sdk.beta.sessions.retrieve("env_1"), "begins with sesn_"),
    ],
)
async def test_what_is_not_there_is_a_404_that_says_so(client, call, said):
    with pytest.raises(anthropic.NotFoundError, match=said) as refused:
        await client(call)
    assert refused.value.body["error"]["type"] == "not_found_error"
    assert refused.value.request_id.startswith("req_")


@pytest.mark.parametrize("key", ["sk-ant-api03-wrong", "sk-ant-req-work_1.0.00", "x" * 600])
async def test_a_wrong_key_is_a_401(brain, key):
    async with brain_client(brain, "async", key) as client:
        with pytest.raises(anthropic.AuthenticationError) as refused:
            await client(lambda sdk: sdk.beta.agents.list())
    assert refused.value.body["error"]["type"] == "authentication_error"


HOSTILE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff",
    b'{"name": 5}',
    b'{"name": "a", "model": "scripted", "unknown": 1}',
    b'{"a":' * 5000,
    b"[" * 100_000,
    b'{"name": "\\ud800"}',
]


@pytest.mark.parametrize(
    "path",
    ["agents", "environments", "sessions", "memory_stores", "vaults", "skills"],
)
async def test_hostile_bodies_are_a_400(brain, path):
    headers = {**BETA, "content-type": "application/json"}
    async with brain_client(brain, "async") as client:
        for body in HOSTILE:
            with pytest.raises(anthropic.BadRequestError) as refused:
                await client.sdk.post(
                    f"/v1/{path}", cast_to=object, content=body, options={"headers": headers}
                )
            assert refused.value.body["error"]["type"] == "invalid_request_error", body[:40]


async def test_a_body_that_is_too_large_is_a_413(brain):
    async with brain_client(brain, "async") as client:
        with pytest.raises(anthropic.APIStatusError) as refused:
            await client.sdk.beta.skills.create(files=[("a/SKILL.md", b"x" * (41 << 20))])
        assert refused.value.status_code == 413
        assert refused.value.body["type"] == "error"
        assert [each.id async for each in client.sdk.models.list()] == ["scripted"]

"""Agents, environments, sessions, events and the work queue: the sync and the async SDK alike."""

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


def said(text: str) -> dict:
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


async def make_agent(client, *steps, tools=(TOOLSET,)):
    return await client(
        lambda sdk: sdk.beta.agents.create(
            name="a", model="scripted", system=script(*steps), tools=list(tools)
        )
    )


async def test_agents(client):
    agent = await make_agent(client, {"say": "1"})
    second = await client(lambda sdk: sdk.beta.agents.update(agent.id, version=1, description="d"))
    assert second.version == 2
    with pytest.raises(anthropic.ConflictError):
        await client(lambda sdk: sdk.beta.agents.update(agent.id, version=1, name="late"))
    old = await client(lambda sdk: sdk.beta.agents.retrieve(agent.id, version=1))
    assert (old.version, old.description) == (1, None)
    with pytest.raises(anthropic.NotFoundError):
        await client(lambda sdk: sdk.beta.agents.retrieve(agent.id, version=3))
    versions = await client.all(lambda sdk: sdk.beta.agents.versions.list(agent.id, limit=1))
    assert [each.version for each in versions] == [2, 1]
    assert (await client(lambda sdk: sdk.beta.agents.archive(agent.id))).archived_at
    listed = await client.all(lambda sdk: sdk.beta.agents.list(include_archived=True, limit=1))
    assert agent.id in [each.id for each in listed]


async def test_environments(client):
    made = await client(
        lambda sdk: sdk.beta.environments.create(
            name="e", config={"type": "self_hosted"}, metadata={"a": "1", "b": "2"}
        )
    )
    changed = await client(
        lambda sdk: sdk.beta.environments.update(made.id, metadata={"a": "", "b": None, "c": "3"})
    )
    assert changed.metadata == {"c": "3"}
    assert await client(lambda sdk: sdk.beta.environments.retrieve(made.id)) == changed
    assert (await client(lambda sdk: sdk.beta.environments.archive(made.id))).archived_at
    with pytest.raises(anthropic.BadRequestError) as archived:
        await client(lambda sdk: sdk.beta.environments.update(made.id, description="d"))
    assert archived.value.error_code == "environment_archived"
    gone = await client(lambda sdk: sdk.beta.environments.delete(made.id))
    assert gone.type == "environment_deleted"


async def test_sessions_and_events(brain, client):
    agent = await make_agent(client, {"say": "hello"})
    session = await client(
        lambda sdk: sdk.beta.sessions.create(
            agent={"type": "agent", "id": agent.id, "version": 1},
            environment_id=brain.environment_id,
            initial_events=[said("go")],
            metadata={"k": "v"},
        )
    )
    for _ in range(500):
        events = await client.all(
            lambda sdk: sdk.beta.sessions.events.list(session.id, types=["agent.message"])
        )
        if events:
            break
    assert events[0].content[0].text == "hello"
    newest = await client.all(
        lambda sdk: sdk.beta.sessions.events.list(session.id, order="desc", limit=3)
    )
    assert newest[-1].type == "user.message"
    for query, found in [
        ({"agent_id": agent.id, "agent_version": 1}, 1),
        ({"agent_id": agent.id, "agent_version": 2}, 0),
        ({"agent_id": agent.id, "created_at_gt": session.created_at}, 0),
        ({"agent_id": agent.id, "created_at_gte": session.created_at, "order": "asc"}, 1),
        ({"agent_id": agent.id, "statuses": ["idle"]}, 1),
        ({"agent_id": agent.id, "statuses": ["terminated"]}, 0),
    ]:
        listed = await client.all(lambda sdk, query=query: sdk.beta.sessions.list(**query))
        assert len(listed) == found, query
    archived = await client(lambda sdk: sdk.beta.sessions.archive(session.id))
    assert archived.status == "terminated"
    gone = await client(lambda sdk: sdk.beta.sessions.delete(session.id))
    assert gone.type == "session_deleted"


@pytest.mark.parametrize("policy", ["always_ask", "auto"])
async def test_a_call_that_asks_is_held_until_its_verdict(brain, client, policy):
    asking = {**TOOLSET, "default_config": {"permission_policy": {"type": policy}}}
    agent = await make_agent(client, call("bash", command="x"), {"say": "end"}, tools=[asking])
    session = await client(
        lambda sdk: sdk.beta.sessions.create(
            agent=agent.id, environment_id=brain.environment_id, initial_events=[said("go")]
        )
    )

    async def listed(kind: str):
        for _ in range(500):
            events = await client.all(
                lambda sdk: sdk.beta.sessions.events.list(session.id, types=[kind])
            )
            if events:
                return events
        raise AssertionError(f"no {kind}")

    [use] = await listed("agent.tool_use")
    assert (use.evaluated_permission, use.evaluation.type) == ("ask", policy)
    verdict = {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": "deny"}
    await client(lambda sdk: sdk.beta.sessions.events.send(session.id, events=[verdict]))
    await listed("agent.message")
    await client(lambda sdk: sdk.beta.sessions.delete(session.id))


async def test_the_work_queue(brain, client):
    made = await client(
        lambda sdk: sdk.beta.environments.create(name="work", config={"type": "self_hosted"})
    )
    headers = {"anthropic-beta": "managed-agents-2026-04-01"}
    key = await client(
        lambda sdk: sdk.post(
            f"/v1/environments/{made.id}/keys", cast_to=object, options={"headers": headers}
        )
    )
    agent = await make_agent(client, call("bash", command="x"))
    session = await client(
        lambda sdk: sdk.beta.sessions.create(
            agent=agent.id, environment_id=made.id, initial_events=[said("go")]
        )
    )
    kind = "sync" if isinstance(client.sdk, anthropic.Anthropic) else "async"
    async with brain_client(brain, kind, key["key"]) as hands:

        def work(sdk):
            return sdk.beta.environments.work

        item = await hands(lambda sdk: work(sdk).poll(made.id, block_ms=999))
        assert (item.data.id, item.state) == (session.id, "queued")
        again = await hands(lambda sdk: work(sdk).poll(made.id))
        assert again is None
        reclaimed = await hands(lambda sdk: work(sdk).poll(made.id, reclaim_older_than_ms=0))
        assert reclaimed.id == item.id
        await hands(lambda sdk: work(sdk).ack(item.id, environment_id=made.id))
        await hands(
            lambda sdk: work(sdk).heartbeat(
                item.id, environment_id=made.id, expected_last_heartbeat="NO_HEARTBEAT"
            )
        )
        with pytest.raises(anthropic.APIStatusError) as lost:
            await hands(
                lambda sdk: work(sdk).heartbeat(
                    item.id, environment_id=made.id, expected_last_heartbeat="NO_HEARTBEAT"
                )
            )
        assert lost.value.status_code == 412
        assert lost.value.error_code == "heartbeat_precondition_failed"
        assert [each.id for each in (await hands(lambda sdk: work(sdk).list(made.id))).data] == [
            item.id
        ]
        stats = await hands(lambda sdk: work(sdk).stats(made.id))
        assert (stats.depth, stats.pending) == (0, 0)
        stopped = await hands(
            lambda sdk: work(sdk).stop(item.id, environment_id=made.id, force=True)
        )
        assert stopped.state == "stopped"
        for milliseconds in (0, 1000):
            with pytest.raises(anthropic.BadRequestError):
                await hands(lambda sdk, block=milliseconds: work(sdk).poll(made.id, block_ms=block))
    kept = await client(lambda sdk: work(sdk).retrieve(item.id, environment_id=made.id))
    assert kept.state == "stopped"
    await client(lambda sdk: sdk.beta.sessions.delete(session.id))
    await client(lambda sdk: sdk.beta.environments.delete(made.id))


async def test_made_keys_survive_a_crash(tmp_path):
    with BrainProcess.start(tmp_path / "brain.db") as brain:
        async with brain_client(brain, "async") as client:
            path = f"/v1/environments/{brain.environment_id}/keys"
            headers = {"anthropic-beta": "managed-agents-2026-04-01"}
            key = await client.sdk.post(path, cast_to=object, options={"headers": headers})
        brain.kill()
        brain.restart()
        async with brain_client(brain, "async", key["key"]) as hands:
            polled = await hands(lambda sdk: sdk.beta.environments.work.poll(brain.environment_id))
    assert polled is None

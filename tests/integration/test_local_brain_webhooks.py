"""Webhooks of the real process: a session's life is told, signed, and told after a crash too."""

import json

import pytest
from standardwebhooks import Webhook

from brain_clients import brain_client
from brain_process import BrainProcess, script
from webhook_receiver import receiving


def kinds(receiver) -> list[str]:
    return [json.loads(each.body)["data"]["type"] for each in receiver.requests]


async def register(client, url: str, *event_types: str) -> dict:
    body = {"url": url, **({"event_types": list(event_types)} if event_types else {})}
    return await client.sdk.post("/v1/webhook_endpoints", cast_to=object, body=body)


async def make_session(client, brain):
    agent = await client.sdk.beta.agents.create(
        name="a", model="scripted", system=script({"say": "x"})
    )
    said = {"type": "user.message", "content": [{"type": "text", "text": "go"}]}
    return await client.sdk.beta.sessions.create(
        agent=agent.id, environment_id=brain.environment_id, initial_events=[said]
    )


async def test_a_sessions_life_is_told_and_unwraps_with_the_sdk(tmp_path):
    with BrainProcess.start(tmp_path / "brain.db") as brain:
        async with brain_client(brain, "async") as client, receiving() as receiver:
            endpoint = await register(client, receiver.url)
            session = await make_session(client, brain)
            await receiver.heard(5)
            await client.sdk.beta.sessions.update(session.id, title="t")
            await client.sdk.beta.sessions.archive(session.id)
            await client.sdk.beta.sessions.delete(session.id)
            await receiver.heard(9)
            for each in receiver.requests:
                event = client.sdk.beta.webhooks.unwrap(
                    each.body.decode(), headers=each.headers, key=endpoint["signing_secret"]
                )
                assert event.data.id == session.id
                assert Webhook(endpoint["signing_secret"]).verify(each.body, each.headers)
        assert endpoint["signing_secret"].encode() not in brain.log.read_bytes()
    assert sorted(kinds(receiver)) == [
        "session.archived",
        "session.created",
        "session.deleted",
        "session.idled",
        "session.running",
        "session.status_idled",
        "session.status_run_started",
        "session.status_terminated",
        "session.updated",
    ]


@pytest.mark.timeout(90)
async def test_a_delivery_that_failed_comes_again_after_a_crash(tmp_path):
    with BrainProcess.start(tmp_path / "brain.db") as brain:
        async with brain_client(brain, "async") as client, receiving(503, 200) as receiver:
            await register(client, receiver.url, "session.created")
            await make_session(client, brain)
            await receiver.heard(1)
            brain.kill()
            brain.restart()
            first, second = await receiver.heard(2)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body

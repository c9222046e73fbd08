"""The unmodified SDK, sync and async, against the local brain's process."""

import asyncio
import json

import anthropic
import pytest
from anthropic import Anthropic, AsyncAnthropic

from brain_process import TOOLSET, BrainProcess, call, script


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as process:
        yield process


@pytest.fixture
def client(brain):
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url, max_retries=0) as made:
        yield made


@pytest.fixture
async def hands(brain):
    async with AsyncAnthropic(
        auth_token=brain.environment_key, base_url=brain.base_url, max_retries=0, timeout=20
    ) as made:
        yield made


def said(text: str) -> dict:
    return {"type": "user.message", "content": [{"type": "text", "text": text}]}


def result(event, text: str, *, is_error: bool = False) -> dict:
    key = "custom_tool_use_id" if event.type == "agent.custom_tool_use" else "tool_use_id"
    kind = event.type.replace("agent.", "user.").replace("_use", "_result")
    content = [{"type": "text", "text": text}]
    return {"type": kind, key: event.id, "content": content, "is_error": is_error}


def session_of(client, brain, *steps, tools=(TOOLSET,), **more):
    agent = client.beta.agents.create(
        name="a", model="scripted", system=script(*steps), tools=list(tools)
    )
    return client.beta.sessions.create(agent=agent.id, environment_id=brain.environment_id, **more)


def types(client, session) -> list[str]:
    return [event.type for event in client.beta.sessions.events.list(session.id)]


def play(client, session, message, answer) -> list:
    """Send a message and answer every call until the turn ends; the events of the stream."""
    seen = []
    with client.beta.sessions.events.stream(session.id) as stream:
        client.beta.sessions.events.send(session.id, events=[said(message)])
        for event in stream:
            seen.append(event)
            if event.type in ("agent.tool_use", "agent.custom_tool_use"):
                client.beta.sessions.events.send(session.id, events=[answer(event)])
            if event.type == "session.status_idle" and event.stop_reason.type != "requires_action":
                return seen
    raise AssertionError("the stream ended early")


WHOLE_TURN = [
    "user.message",
    "session.status_running",
    "span.model_request_start",
    "agent.message",
    "agent.tool_use",
    "span.model_request_end",
    "session.status_idle",
    "user.tool_result",
    "session.status_running",
    "span.model_request_start",
    "agent.message",
    "span.model_request_end",
    "session.usage",
    "session.status_idle",
]


def test_a_turn_is_streamed_and_listed_alike(client, brain):
    session = session_of(
        client, brain, {"say": "a"}, call("bash", command="ls"), {"say": "${result}"}
    )
    assert session.status == "idle"
    seen = play(client, session, "go", lambda event: result(event, "one two"))
    assert [event.type for event in seen] == WHOLE_TURN == types(client, session)
    assert seen[-4].content[0].text == "one two"
    assert seen[4].evaluated_permission == "allow"
    stamps = [event.processed_at for event in client.beta.sessions.events.list(session.id)]
    assert stamps == sorted(stamps)
    assert client.beta.sessions.retrieve(session.id).status == "idle"


def test_the_script_branches_on_the_real_failure(client, brain):
    session = session_of(
        client,
        brain,
        call("bash", command="pytest"),
        {
            "if": {"is_error": True},
            "then": [
                {"capture": {"name": "line", "pattern": r"line (\d+)"}},
                call("edit", file_path="a.py", old_string="line ${line}", new_string="x"),
            ],
        },
        {"say": "done"},
    )
    seen = play(
        client,
        session,
        "go",
        lambda event: result(event, "error in line 7", is_error=event.name == "bash"),
    )
    edits = [event for event in seen if event.type == "agent.tool_use" and event.name == "edit"]
    assert [event.input["old_string"] for event in edits] == ["line 7"]


def test_parallel_calls_are_told_at_once_and_settled_one_by_one(client, brain):
    both = {"calls": [{"tool": "bash", "input": {"n": 1}}, {"tool": "mine", "input": {"n": 2}}]}
    mine = {
        "type": "custom",
        "name": "mine",
        "description": "d",
        "input_schema": {"type": "object"},
    }
    session = session_of(client, brain, both, {"say": "end"}, tools=[TOOLSET, mine])
    seen = play(client, session, "go", lambda event: result(event, "x"))
    idles = [event for event in seen if event.type == "session.status_idle"]
    waits = [idle.stop_reason.event_ids for idle in idles[:2]]
    assert len(waits[0]) == 2
    assert waits[1] == waits[0][1:]


def test_a_second_result_is_harmless_and_an_unknown_one_is_refused(client, brain):
    session = session_of(client, brain, call("bash", command="ls"), call("bash", command="ls"))
    client.beta.sessions.events.send(session.id, events=[said("go")])
    [use] = wait_for(client, session, "agent.tool_use")
    first = client.beta.sessions.events.send(session.id, events=[result(use, "1")])
    again = client.beta.sessions.events.send(session.id, events=[result(use, "2")])
    assert again.data[0].id == first.data[0].id
    assert types(client, session).count("user.tool_result") == 1
    with pytest.raises(anthropic.BadRequestError, match="waits for a result"):
        client.beta.sessions.events.send(
            session.id, events=[{"type": "user.tool_result", "tool_use_id": "sevt_none"}]
        )


def wait_for(client, session, kind: str, count: int = 1) -> list:
    for _ in range(500):
        events = client.beta.sessions.events.list(session.id, types=[kind])
        if len(events.data) >= count:
            return events.data
    raise AssertionError(f"no {kind}")


def test_an_interrupt_settles_the_call_and_the_next_message_starts_anew(client, brain):
    session = session_of(client, brain, call("bash", command="sleep 9"), {"say": "end"})
    client.beta.sessions.events.send(session.id, events=[said("go")])
    [use] = wait_for(client, session, "agent.tool_use")
    client.beta.sessions.events.send(session.id, events=[{"type": "user.interrupt"}])
    assert client.beta.sessions.retrieve(session.id).status == "idle"
    assert types(client, session)[-3:] == [
        "user.interrupt",
        "agent.tool_result",
        "session.status_idle",
    ]
    with pytest.raises(anthropic.BadRequestError):
        client.beta.sessions.events.send(session.id, events=[result(use, "late")])
    client.beta.sessions.events.send(session.id, events=[said("again")])
    assert len(wait_for(client, session, "agent.tool_use", 2)) == 2


def test_a_message_in_an_open_turn_waits_for_its_end(client, brain):
    session = session_of(client, brain, call("bash", command="x"), {"say": "${text}"})
    client.beta.sessions.events.send(session.id, events=[said("one")])
    [use] = wait_for(client, session, "agent.tool_use")
    [waiting] = client.beta.sessions.events.send(session.id, events=[said("two")]).data
    assert waiting.processed_at is None
    client.beta.sessions.events.send(session.id, events=[result(use, "r")])
    second = wait_for(client, session, "agent.tool_use", 2)[1]
    client.beta.sessions.events.send(session.id, events=[result(second, "r")])
    texts = [e.content[0].text for e in wait_for(client, session, "agent.message", 2)]
    assert texts == ["one", "two"]
    messages = wait_for(client, session, "user.message", 2)
    assert [m.id for m in messages][1] == waiting.id
    assert all(m.processed_at for m in messages)


@pytest.mark.parametrize(("verdict", "text"), [("allow", "ran"), ("deny", "refused")])
def test_an_ask_call_waits_for_its_verdict(client, brain, verdict, text):
    asking = {
        **TOOLSET,
        "configs": [{"name": "bash", "permission_policy": {"type": "always_ask"}}],
    }
    session = session_of(
        client, brain, call("bash", command="x"), {"say": "${result}"}, tools=[asking]
    )
    client.beta.sessions.events.send(session.id, events=[said("go")])
    [use] = wait_for(client, session, "agent.tool_use")
    assert use.evaluated_permission == "ask"
    with pytest.raises(anthropic.BadRequestError, match="tool_confirmation"):
        client.beta.sessions.events.send(session.id, events=[result(use, "early")])
    confirmation = {"type": "user.tool_confirmation", "tool_use_id": use.id, "result": verdict}
    client.beta.sessions.events.send(session.id, events=[confirmation])
    if verdict == "allow":
        client.beta.sessions.events.send(session.id, events=[result(use, "ran")])
    [message] = wait_for(client, session, "agent.message")
    assert text in message.content[0].text


def test_a_tool_the_agent_lacks_is_denied_and_the_model_reads_it(client, brain):
    session = session_of(client, brain, call("web_fetch", url="x"), {"say": "${result}"})
    client.beta.sessions.events.send(session.id, events=[said("go")])
    [message] = wait_for(client, session, "agent.message")
    assert "not enabled" in message.content[0].text


def test_a_failing_script_ends_the_turn_with_an_error(client, brain):
    session = session_of(client, brain, {"fail": "no way"})
    client.beta.sessions.events.send(session.id, events=[said("go")])
    [error] = wait_for(client, session, "session.error")
    assert error.error.message == "no way"
    assert types(client, session)[-1] == "session.status_idle"


def test_lists_are_paged_filtered_and_ordered(client, brain):
    session = session_of(client, brain, {"say": "x"})
    for number in range(3):
        play(client, session, str(number), None)
    listed = client.beta.sessions.events.list
    whole = [event.id for event in listed(session.id)]
    assert [event.id for event in listed(session.id, limit=2)] == whole
    assert [event.id for event in listed(session.id, limit=4, order="desc")] == whole[::-1]
    middle = list(listed(session.id))[5].processed_at
    early = [event.id for event in listed(session.id, created_at_lte=middle)]
    late = [event.id for event in listed(session.id, created_at_gt=middle)]
    assert early + late == whole
    some = [event.type for event in listed(session.id, types=["user.message", "agent.message"])]
    assert some == ["user.message", "agent.message"] * 3


def test_agents_are_versioned_locked_and_archived(client):
    agent = client.beta.agents.create(
        name="v", model="scripted", system=script({"say": "1"}), metadata={"a": "1", "b": "2"}
    )
    second = client.beta.agents.update(agent.id, version=1, description="d", metadata={"a": None})
    assert (second.version, second.metadata) == (2, {"b": "2"})
    with pytest.raises(anthropic.ConflictError):
        client.beta.agents.update(agent.id, version=1, name="late")
    assert [v.version for v in client.beta.agents.versions.list(agent.id)] == [2, 1]
    assert client.beta.agents.retrieve(agent.id).version == 2
    assert client.beta.agents.archive(agent.id).archived_at
    assert agent.id not in [each.id for each in client.beta.agents.list(limit=5)]


def test_environments_and_sessions_are_managed(client, brain):
    made = client.beta.environments.create(name="e1", config={"type": "self_hosted"})
    with pytest.raises(anthropic.ConflictError):
        client.beta.environments.create(name="e1", config={"type": "self_hosted"})
    assert client.beta.environments.update(made.id, description="d").description == "d"
    assert made.id in [each.id for each in client.beta.environments.list()]
    assert client.beta.environments.delete(made.id).type == "environment_deleted"
    session = session_of(client, brain, {"say": "x"}, metadata={"k": "v"})
    assert client.beta.sessions.update(session.id, title="t").title == "t"
    assert session.id in [each.id for each in client.beta.sessions.list(limit=2)]
    archived = client.beta.sessions.archive(session.id)
    assert archived.status == "terminated"
    assert types(client, session) == ["session.updated", "session.status_terminated"]
    with pytest.raises(anthropic.BadRequestError, match="terminated"):
        client.beta.sessions.events.send(session.id, events=[said("go")])


def test_initial_events_and_overrides(client, brain):
    agent = client.beta.agents.create(name="o", model="scripted", system=script({"say": "base"}))
    session = client.beta.sessions.create(
        agent={"type": "agent_with_overrides", "id": agent.id, "system": script({"say": "mine"})},
        environment_id=brain.environment_id,
        initial_events=[said("go")],
    )
    [message] = wait_for(client, session, "agent.message")
    assert message.content[0].text == "mine"
    assert client.beta.agents.retrieve(agent.id).system == script({"say": "base"})


def test_deleting_a_session_ends_its_stream(client, brain):
    session = session_of(client, brain, call("bash", command="x"))
    with client.beta.sessions.events.stream(session.id) as stream:
        client.beta.sessions.events.send(session.id, events=[said("go")])
        assert client.beta.sessions.delete(session.id).type == "session_deleted"
        assert [event.type for event in stream][-1] == "session.deleted"
    with pytest.raises(anthropic.NotFoundError):
        client.beta.sessions.retrieve(session.id)


def test_wrong_requests_are_refused_clearly(client, brain):
    create = client.beta.agents.create
    with pytest.raises(anthropic.BadRequestError, match="serves 'scripted' only"):
        create(name="x", model="some-other-model", system="hi")
    with pytest.raises(anthropic.BadRequestError, match=r"turns\[0\]\.steps\[1\]"):
        create(name="x", model="scripted", system=script({"say": "a"}, {"shout": "b"}))
    custom = {"type": "custom", "name": "bash", "description": "d", "input_schema": {}}
    with pytest.raises(anthropic.BadRequestError, match="reserved"):
        create(name="x", model="scripted", system=script({"say": "a"}), tools=[custom])
    schema = {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}
    custom = {"type": "custom", "name": "mine", "description": "d", "input_schema": schema}
    with pytest.raises(anthropic.BadRequestError, match=r"input_schema of 'mine': no \$ref"):
        create(name="x", model="scripted", system=script({"say": "a"}), tools=[custom])
    server = {"type": "url", "name": "m", "url": "https://m.example.org"}
    for unserved, told in (
        ({"mcp_servers": [server]}, "mcp_servers: this brain serves no MCP servers"),
        ({"tools": [{"type": "mcp_toolset", "mcp_server_name": "m"}]}, "serves no MCP servers"),
        ({"extra_body": {"multiagent": {"type": "coordinator"}}}, "has one thread"),
    ):
        with pytest.raises(anthropic.BadRequestError, match=told):
            create(name="x", model="scripted", system=script({"say": "a"}), **unserved)
    agent = create(name="x", model="scripted", system=script({"say": "a"}))
    sessions = client.beta.sessions
    with pytest.raises(anthropic.NotFoundError, match="agent"):
        sessions.create(agent="agent_none", environment_id=brain.environment_id)
    with pytest.raises(anthropic.NotFoundError, match="environment"):
        sessions.create(agent=agent.id, environment_id="env_none")
    with pytest.raises(anthropic.BadRequestError, match="self-hosted environment"):
        sessions.create(
            agent=agent.id,
            environment_id=brain.environment_id,
            resources=[{"type": "file", "file_id": "file_1"}],
        )


async def test_an_empty_poll_answers_null(hands, brain):
    poll = hands.beta.environments.work.poll
    await drain(hands, brain)
    assert await poll(brain.environment_id) is None
    assert await poll(brain.environment_id, block_ms=50) is None
    with pytest.raises(anthropic.BadRequestError):
        await poll(brain.environment_id, block_ms=0)


async def drain(hands, brain) -> None:
    """End the work that other tests left in the queue."""
    work = hands.beta.environments.work
    while (item := await work.poll(brain.environment_id)) is not None:
        await asyncio.to_thread(remove, brain, item.data.id)


def remove(brain, session_id: str) -> None:
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        client.beta.sessions.delete(session_id)


async def test_work_is_not_handed_to_a_poller_that_has_gone(hands, brain, client):
    """It would be missing until its reclaim, 5 s later."""
    await drain(hands, brain)
    _, writer = await asyncio.open_connection("127.0.0.1", brain.port)
    path = f"/v1/environments/{brain.environment_id}/work/poll?block_ms=999"
    writer.write(
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{brain.port}\r\n"
        f"authorization: Bearer {brain.environment_key}\r\n"
        "anthropic-beta: managed-agents-2026-04-01\r\n\r\n".encode()
    )
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    await writer.wait_closed()
    await asyncio.sleep(0.1)
    session = session_of(client, brain, call("bash", command="x"), initial_events=[said("go")])
    item = await hands.beta.environments.work.poll(brain.environment_id, block_ms=999)
    assert item is not None
    assert item.data.id == session.id


async def test_a_waiting_poll_is_answered_when_work_arrives(hands, brain, client):
    await drain(hands, brain)
    session = session_of(client, brain, call("bash", command="x"))
    polling = asyncio.ensure_future(
        hands.beta.environments.work.poll(brain.environment_id, block_ms=999)
    )
    await asyncio.sleep(0.1)
    await asyncio.to_thread(client.beta.sessions.events.send, session.id, events=[said("go")])
    item = await polling
    assert item.data.id == session.id
    assert item.secret


async def test_the_lease_is_conditional(hands, brain, client):
    await drain(hands, brain)
    session_of(client, brain, call("bash", command="x"), initial_events=[said("go")])
    work = hands.beta.environments.work
    env = brain.environment_id
    item = await work.poll(env, block_ms=999)
    assert (await work.ack(item.id, environment_id=env)).state == "starting"
    with pytest.raises(anthropic.ConflictError):
        await work.ack(item.id, environment_id=env)
    beaten = await work.heartbeat(
        item.id, environment_id=env, expected_last_heartbeat="NO_HEARTBEAT"
    )
    assert (beaten.state, beaten.lease_extended, beaten.ttl_seconds) == ("active", True, 300)
    with pytest.raises(anthropic.APIStatusError) as refused:
        await work.heartbeat(item.id, environment_id=env, expected_last_heartbeat="NO_HEARTBEAT")
    assert refused.value.status_code == 412
    details = refused.value.body["error"]["details"]
    assert details["error_code"] == "heartbeat_precondition_failed"
    assert details["current_state"]["last_heartbeat"] == beaten.last_heartbeat
    again = await work.heartbeat(
        item.id, environment_id=env, expected_last_heartbeat=beaten.last_heartbeat
    )
    assert again.lease_extended
    assert (await work.stop(item.id, environment_id=env)).state == "stopping"
    stopping = await work.heartbeat(item.id, environment_id=env, expected_last_heartbeat="old")
    assert (stopping.state, stopping.lease_extended) == ("stopping", False)
    assert (await work.stop(item.id, environment_id=env, force=True)).state == "stopped"
    with pytest.raises(anthropic.ConflictError):
        await work.stop(item.id, environment_id=env, force=True)
    follower = await work.poll(env, block_ms=999)
    assert (follower.data.id, follower.id != item.id) == (item.data.id, True)
    listed = await work.list(env)
    assert {follower.id, item.id} <= {each.id for each in listed.data}
    stats = await work.stats(env)
    assert stats.type == "work_queue_stats"
    assert stats.pending >= 1
    with pytest.raises(anthropic.PermissionDeniedError):
        await work.retrieve(item.id, environment_id=env)
    admin = client.beta.environments.work
    assert admin.update(follower.id, environment_id=env, metadata={"a": "b"}).metadata == {"a": "b"}
    assert admin.retrieve(item.id, environment_id=env).state == "stopped"
    with pytest.raises(anthropic.PermissionDeniedError):
        admin.poll(env)


def test_skills_are_missing_in_the_protocols_words(client):
    with pytest.raises(anthropic.NotFoundError) as refused:
        client.beta.skills.versions.retrieve("latest", skill_id="skill_1")
    assert refused.value.body["error"]["type"] == "not_found_error"
    assert refused.value.request_id == refused.value.body["request_id"]
    assert json.dumps(refused.value.body)

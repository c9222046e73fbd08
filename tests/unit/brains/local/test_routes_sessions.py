"""Who may see a session, and what its routes refuse."""

import pytest

SCRIPT = '{"turns": [{"steps": [{"call": {"tool": "bash"}}]}]}'
GO = {"events": [{"type": "user.message", "content": [{"type": "text", "text": "go"}]}]}


@pytest.fixture
async def session(make_session, http):
    return await make_session(SCRIPT)


async def test_an_environments_key_sees_its_sessions_only(http, session, environment_key):
    path = f"/v1/sessions/{session.id}"
    assert (await http("GET", path, key=environment_key)).status_code == 200
    assert (await http("POST", path, {}, key=environment_key)).status_code == 403
    assert (await http("DELETE", path, key=environment_key)).status_code == 403
    session.body.environment_id = "env_2"
    for suffix in ("", "/events", "/events/stream", "/threads"):
        assert (await http("GET", path + suffix, key=environment_key)).status_code == 404
    assert (await http("POST", f"{path}/events", GO, key=environment_key)).status_code == 404


async def test_a_sessions_key_sees_its_own_session_while_its_lease_lasts(
    http, services, session, make_session
):
    other = await make_session(SCRIPT)
    [item] = services.work.offer("env_1", session.id)
    key = services.keyring._sessions_token(item.id, item.epoch)
    old = services.keyring._sessions_token(item.id, item.epoch + 1)
    assert (await http("GET", f"/v1/sessions/{session.id}", key=key)).status_code == 200
    assert (await http("GET", f"/v1/sessions/{session.id}", key=old)).status_code == 403
    assert (await http("GET", f"/v1/sessions/{other.id}", key=key)).status_code == 404
    assert (await http("GET", "/v1/sessions", key=key)).status_code == 403


async def test_keys_of_hands_post_results_and_nothing_else(
    http, services, session, environment_key, settle
):
    path = f"/v1/sessions/{session.id}/events"
    [item] = services.work.offer("env_1", session.id)
    await http("POST", path, GO)
    await settle(lambda: session.turn.pending)
    keys = (environment_key, services.keyring._sessions_token(item.id, item.epoch))
    called = session.turn.pending[0].id
    confirm = {"type": "user.tool_confirmation", "tool_use_id": called, "result": "allow"}
    posted = {"type": "user.tool_result", "tool_use_id": called, "content": []}
    for key in keys:
        for event in (GO["events"][0], {"type": "user.interrupt"}, confirm):
            for events in ([event], [posted, event]):
                refused = await http("POST", path, {"events": events}, key=key)
                assert refused.status_code == 403
                assert refused.json()["error"]["type"] == "permission_error"
        assert [call.id for call in session.turn.pending] == [called]
    for key in keys:
        assert (await http("POST", path, {"events": [posted]}, key=key)).status_code == 200


async def test_tools_change_between_turns_only(http, session, settle):
    path, change = f"/v1/sessions/{session.id}", {"agent": {"tools": []}}
    await http("POST", f"{path}/events", GO)
    await settle(lambda: session.turn.pending)
    assert (await http("POST", path, change)).status_code == 400
    await http("POST", f"{path}/events", {"events": [{"type": "user.interrupt"}]})
    assert (await http("POST", path, change)).json()["agent"]["tools"] == []


async def test_sessions_are_filtered(http, session, make_session):
    other = await make_session(SCRIPT)
    await http("POST", f"/v1/sessions/{other.id}/archive")

    async def listed(query: str) -> list[str]:
        return [each["id"] for each in (await http("GET", f"/v1/sessions{query}")).json()["data"]]

    assert await listed("") == [session.id]
    assert await listed("?include_archived=true") == [other.id, session.id]
    assert await listed("?include_archived=true&statuses%5B%5D=terminated") == [other.id]
    assert await listed(f"?agent_id={session.body.agent['id']}") == [session.id]
    assert await listed(f"?agent_id={session.body.agent['id']}&agent_version=1") == [session.id]
    assert await listed(f"?agent_id={session.body.agent['id']}&agent_version=2") == []
    assert await listed("?deployment_id=depl_1") == []
    assert (await http("GET", "/v1/sessions?statuses%5B%5D=asleep")).status_code == 400


async def test_an_update_is_told_by_what_it_changed(http, session):
    path = f"/v1/sessions/{session.id}"
    await http("POST", path, {"title": "t", "metadata": {"a": "1"}})
    await http("POST", path, {"title": "t", "metadata": {"a": "1"}})
    await http("POST", path, {"metadata": {"a": None}})
    events = (await http("GET", f"{path}/events")).json()["data"]
    told = [{k: v for k, v in e.items() if k not in ("id", "processed_at")} for e in events]
    assert told == [
        {"type": "session.updated", "metadata": {"a": "1"}, "title": "t"},
        {"type": "session.updated", "metadata": {}},
    ]
    assert (await http("GET", path)).json()["title"] == "t"


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"type": "user.define_outcome", "description": "d", "rubric": {}}, "outcomes"),
        ({"type": "system.message", "content": []}, "system context"),
        ({"type": "agent.message", "content": []}, "Invalid value"),
    ],
)
async def test_events_that_are_not_taken_are_refused_by_name(http, session, event, reason):
    path = f"/v1/sessions/{session.id}/events"
    refused = await http("POST", path, {"events": [*GO["events"], event]})
    assert refused.status_code == 400
    assert reason in refused.json()["error"]["message"]
    assert (await http("GET", path)).json()["data"] == []

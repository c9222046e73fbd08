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


async def test_tools_change_between_turns_only(http, session, settle):
    path, change = f"/v1/sessions/{session.id}", {"agent": {"tools": []}}
    await http("POST", f"{path}/events", GO)
    await settle(lambda: session.turn.pending)
    assert (await http("POST", path, change)).status_code == 400
    await http("POST", f"{path}/events", {"events": [{"type": "user.interrupt"}]})
    assert (await http("POST", path, change)).json()["agent"]["tools"] == []


async def test_threads_are_none(http, session):
    path = f"/v1/sessions/{session.id}/threads"
    assert (await http("GET", path)).json() == {"data": [], "next_page": None}
    assert (await http("GET", f"{path}/sthr_1/events")).status_code == 404


async def test_sessions_are_filtered(http, session, make_session):
    other = await make_session(SCRIPT)
    await http("POST", f"/v1/sessions/{other.id}/archive")

    async def listed(query: str) -> list[str]:
        return [each["id"] for each in (await http("GET", f"/v1/sessions{query}")).json()["data"]]

    assert await listed("") == [session.id]
    assert await listed("?include_archived=true") == [other.id, session.id]
    assert await listed("?include_archived=true&statuses%5B%5D=terminated") == [other.id]
    assert await listed(f"?agent_id={session.body.agent['id']}") == [session.id]

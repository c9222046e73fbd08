"""Resources of a session change between its turns only."""

import pytest


@pytest.fixture
async def store(http):
    return (await http("POST", "/v1/memory_stores", {"name": "n"})).json()["id"]


async def test_a_store_is_attached_changed_and_detached(http, store, make_session):
    session = await make_session('{"turns": [{"steps": [{"say": "x"}]}]}')
    path = f"/v1/sessions/{session.id}/resources"
    added = await http("POST", path, {"type": "memory_store", "memory_store_id": store})
    assert added.json()["mount_path"] == "/mnt/memory/n"
    listed = (await http("GET", f"/v1/sessions?memory_store_id={store}")).json()
    assert [each["id"] for each in listed["data"]] == [session.id]
    where = f"{path}/{added.json()['id']}"
    changed = await http("POST", where, {"access": "read_only"})
    assert changed.json() == (await http("GET", where)).json()
    assert (await http("POST", where, {"authorization_token": "t"})).status_code == 400
    assert (await http("GET", path)).json()["data"] == [changed.json()]
    gone = await http("DELETE", where)
    assert gone.json()["type"] == "session_resource_deleted"
    assert (await http("GET", path)).json() == {"data": [], "next_page": None}
    assert (await http("GET", f"/v1/sessions?memory_store_id={store}")).json()["data"] == []


async def test_nothing_changes_while_a_turn_is_open_or_after_the_end(http, store, make_session):
    session = await make_session('{"turns": [{"steps": [{"call": {"tool": "bash"}}]}]}')
    said = {"type": "user.message", "content": [{"type": "text", "text": "x"}]}
    await http("POST", f"/v1/sessions/{session.id}/events", {"events": [said]})
    path = f"/v1/sessions/{session.id}/resources"
    body = {"type": "memory_store", "memory_store_id": store}
    assert "open turn" in (await http("POST", path, body)).json()["error"]["message"]
    await http("POST", f"/v1/sessions/{session.id}/archive", {})
    assert "archived" in (await http("POST", path, body)).json()["error"]["message"]


async def test_hands_may_look_and_not_touch(http, store, make_session, environment_key):
    session = await make_session('{"turns": [{"steps": [{"say": "x"}]}]}')
    path = f"/v1/sessions/{session.id}/resources"
    assert (await http("GET", path, key=environment_key)).status_code == 200
    body = {"type": "memory_store", "memory_store_id": store}
    assert (await http("POST", path, body, key=environment_key)).status_code == 403

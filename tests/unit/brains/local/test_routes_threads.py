"""A session has one thread, which shows what the session is."""

import pytest

SCRIPT = '{"turns": [{"steps": [{"say": "x"}]}]}'
GO = {"events": [{"type": "user.message", "content": [{"type": "text", "text": "go"}]}]}


@pytest.fixture
async def session(make_session):
    return await make_session(SCRIPT)


async def test_the_one_thread_has_the_sessions_events(http, session, settle):
    path = f"/v1/sessions/{session.id}/threads"
    [thread] = (await http("GET", path)).json()["data"]
    assert thread["id"] == f"sthr_{session.id.removeprefix('sesn_')}"
    assert (thread["status"], thread["parent_thread_id"]) == ("idle", None)
    assert (await http("GET", f"{path}/{thread['id']}")).json() == thread
    await http("POST", f"/v1/sessions/{session.id}/events", GO)
    await settle(lambda: not session.turn.open and not session.asking)
    events = (await http("GET", f"{path}/{thread['id']}/events")).json()
    assert events == (await http("GET", f"/v1/sessions/{session.id}/events")).json()
    assert events["data"][0]["type"] == "user.message"


async def test_other_threads_do_not_exist_and_the_one_is_not_archived_alone(http, session):
    path = f"/v1/sessions/{session.id}/threads"
    for suffix in ("", "/events", "/stream"):
        assert (await http("GET", f"{path}/sthr_none{suffix}")).status_code == 404
    refused = await http("POST", f"{path}/{session.thread_id}/archive")
    assert refused.status_code == 400
    assert "primary thread" in refused.json()["error"]["message"]


async def test_threads_are_filtered_by_status(http, session):
    path = f"/v1/sessions/{session.id}/threads"
    assert (await http("GET", f"{path}?statuses%5B%5D=running")).json()["data"] == []
    assert len((await http("GET", f"{path}?statuses%5B%5D=idle")).json()["data"]) == 1


@pytest.mark.parametrize(("named", "status"), [("own", 200), ("sthr_other", 400), (None, 200)])
async def test_an_event_may_name_the_sessions_own_thread_only(http, session, named, status):
    thread = session.thread_id if named == "own" else named
    event = {"type": "user.interrupt", "session_thread_id": thread}
    sent = await http("POST", f"/v1/sessions/{session.id}/events", {"events": [event]})
    assert sent.status_code == status

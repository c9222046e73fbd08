"""Who reaches a memory store: the API key, and the sessions key of a session that names it."""

import base64
import json

import pytest

from handiwork.brains.local.gate import BETA, MEMORY_BETA

SCRIPT = '{"turns": [{"steps": [{"call": {"tool": "bash", "input": {}}}]}]}'


@pytest.fixture
async def agent(http):
    made = await http("POST", "/v1/agents", {"name": "a", "model": "scripted", "system": SCRIPT})
    return made.json()["id"]


@pytest.fixture
def open_session(http, agent, environment_key):
    """Return a maker of sessions with work: their id and their sessions key."""

    async def make(*stores):
        said = {"type": "user.message", "content": [{"type": "text", "text": "x"}]}
        body = {
            "agent": agent,
            "environment_id": "env_1",
            "resources": [{"type": "memory_store", **each} for each in stores],
            "initial_events": [said],
        }
        session = (await http("POST", "/v1/sessions", body)).json()
        polled = await http("GET", "/v1/environments/env_1/work/poll", key=environment_key)
        work = polled.json()
        assert work["data"]["id"] == session["id"]
        secret = json.loads(base64.urlsafe_b64decode(work["secret"] + "=="))
        return session, secret["sessions_token"]

    return make


@pytest.fixture
async def store(http):
    return (await http("POST", "/v1/memory_stores", {"name": "Notes"})).json()["id"]


async def test_a_sessions_key_reaches_its_stores_and_no_other(http, store, open_session):
    other = (await http("POST", "/v1/memory_stores", {"name": "o"})).json()["id"]
    session, key = await open_session({"memory_store_id": store})
    path = f"/v1/memory_stores/{store}"
    made = await http("POST", f"{path}/memories", {"path": "/a", "content": "1"}, key=key)
    assert made.status_code == 200
    version = await http("GET", f"{path}/memory_versions/{made.json()['memory_version_id']}")
    assert version.json()["created_by"] == {"type": "session_actor", "session_id": session["id"]}
    assert (await http("GET", path, key=key)).json()["name"] == "Notes"
    assert (await http("GET", f"/v1/memory_stores/{other}/memories", key=key)).status_code == 404
    for method, refused in [
        ("GET", "/v1/memory_stores"),
        ("DELETE", path),
        ("POST", f"{path}/archive"),
        ("GET", f"{path}/memory_versions"),
    ]:
        body = {} if method == "POST" else None
        assert (await http(method, refused, body, key=key)).status_code == 403


async def test_a_store_attached_read_only_is_not_written(http, store, open_session):
    path = f"/v1/memory_stores/{store}/memories"
    made = await http("POST", path, {"path": "/a", "content": "1"})
    _, key = await open_session({"memory_store_id": store, "access": "read_only"})
    memory = f"{path}/{made.json()['id']}"
    assert (await http("GET", memory, key=key)).json()["content"] == "1"
    for method, where, body in [
        ("POST", path, {"path": "/b", "content": ""}),
        ("POST", memory, {"content": "2"}),
        ("DELETE", memory, None),
    ]:
        refused = await http(method, where, body, key=key)
        assert refused.status_code == 403
        assert "read-only" in refused.json()["error"]["message"]


async def test_an_environment_key_reaches_no_store(http, store, environment_key):
    for path in ("/v1/memory_stores", f"/v1/memory_stores/{store}/memories"):
        assert (await http("GET", path, key=environment_key)).status_code == 403


@pytest.mark.parametrize(("beta", "status"), [(MEMORY_BETA, 200), (BETA, 200), ("x", 404)])
async def test_either_beta_header_opens_the_stores(http, beta, status):
    answered = await http("GET", "/v1/memory_stores", headers={"anthropic-beta": beta})
    assert answered.status_code == status


@pytest.mark.parametrize(
    "query",
    ["view=all", "depth=21", "depth=x", "path_prefix=a/", "path_prefix=/a", "limit=0", "page=x"],
)
async def test_a_wrong_query_is_a_400(http, store, query):
    answered = await http("GET", f"/v1/memory_stores/{store}/memories?{query}")
    assert answered.status_code == 400


async def test_a_full_page_holds_twenty(http, store):
    path = f"/v1/memory_stores/{store}/memories"
    for number in range(21):
        await http("POST", path, {"path": f"/{number}", "content": "c"})
    full = (await http("GET", f"{path}?view=full&limit=100")).json()
    assert len(full["data"]) == 20
    assert full["next_page"]
    basic = (await http("GET", f"{path}?limit=100")).json()
    assert [each["content"] for each in basic["data"]] == [None] * 21

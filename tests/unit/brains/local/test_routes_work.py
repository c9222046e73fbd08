"""Who may touch the queue."""

import pytest


@pytest.fixture
def item(services):
    [made] = services.work.offer("env_1", "sesn_1")
    return made


async def test_each_key_does_what_it_is_for(http, services, item, environment_key):
    base = "/v1/environments/env_1/work"
    worker, mine = environment_key, services.keyring._sessions_token(item.id, 0)
    assert (await http("GET", f"{base}/poll")).status_code == 403
    assert (await http("GET", base)).status_code == 403
    assert (await http("GET", f"{base}/{item.id}", key=worker)).status_code == 403
    assert (await http("GET", f"{base}/stats", key=mine)).status_code == 403
    assert (await http("GET", "/v1/environments/env_2/work/poll", key=worker)).status_code == 403
    assert (await http("GET", f"{base}/poll", key=worker)).json()["id"] == item.id
    assert (await http("POST", f"{base}/{item.id}/ack", key=worker)).status_code == 200
    beat = f"{base}/{item.id}/heartbeat?expected_last_heartbeat=NO_HEARTBEAT"
    assert (await http("POST", beat, key=mine)).json()["state"] == "active"
    assert (await http("POST", f"{base}/work_other/stop", {}, key=mine)).status_code == 403
    assert (await http("POST", f"{base}/{item.id}/stop", {"force": True}, key=mine)).is_success


@pytest.mark.parametrize("query", ["block_ms=0", "block_ms=1000", "reclaim_older_than_ms=x"])
async def test_a_poll_out_of_bounds_is_refused(http, environment_key, query):
    answered = await http("GET", f"/v1/environments/env_1/work/poll?{query}", key=environment_key)
    assert answered.status_code == 400


async def test_an_empty_poll_is_null(http, environment_key):
    answered = await http("GET", "/v1/environments/env_1/work/poll", key=environment_key)
    assert (answered.status_code, answered.content) == (200, b"null")


async def test_the_secret_is_given_by_a_poll_alone(http, item, environment_key):
    base = "/v1/environments/env_1/work"
    assert (await http("GET", f"{base}/poll", key=environment_key)).json()["secret"]
    for method, path, key in (
        ("GET", f"{base}/{item.id}", None),
        ("POST", f"{base}/{item.id}/ack", environment_key),
    ):
        answered = await http(method, path, **({"key": key} if key else {}))
        assert answered.json()["secret"] is None


async def test_a_key_of_an_older_lease_cannot_stop_the_item(http, services, item):
    older = services.keyring._sessions_token(item.id, 7)
    path = f"/v1/environments/env_1/work/{item.id}/stop"
    assert (await http("POST", path, {}, key=older)).status_code == 403

"""Who may make keys, and what a key opens as long as it lasts."""

PATH = "/v1/environments/env_1/keys"
POLL = "/v1/environments/env_1/work/poll"


async def test_keys_follow_one_another(http, environment_key):
    made = (await http("POST", PATH)).json()
    assert (await http("GET", POLL, key=made["key"])).status_code == 200
    assert (
        await http("GET", "/v1/environments/env_2/work/poll", key=made["key"])
    ).status_code == 403
    assert (await http("GET", PATH, key=made["key"])).status_code == 403
    assert (await http("POST", PATH, key=environment_key)).status_code == 403
    gone = await http("DELETE", f"{PATH}/{made['id']}")
    assert gone.json() == {"id": made["id"], "type": "environment_key_deleted"}
    refused = await http("GET", POLL, key=made["key"])
    assert refused.status_code == 401
    assert refused.json()["error"]["type"] == "authentication_error"


async def test_an_environments_end_voids_its_keys(http):
    made = (await http("POST", "/v1/environments/env_2/keys")).json()
    await http("DELETE", "/v1/environments/env_2")
    assert (await http("GET", POLL, key=made["key"])).status_code == 401


async def test_a_body_or_an_archived_environment_is_refused(http):
    assert (await http("POST", PATH, {"key": "mine"})).status_code == 400
    await http("POST", "/v1/environments/env_1/archive")
    assert (await http("POST", PATH)).status_code == 400
    renamed = await http("POST", "/v1/environments/env_1", {"name": "n"})
    assert renamed.json()["error"]["details"] == {"error_code": "environment_archived"}

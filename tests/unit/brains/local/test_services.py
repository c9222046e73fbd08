"""What the routes share: keys of the wrong kind, bodies, names of paths."""


async def test_a_key_of_the_wrong_kind_is_named(http, environment_key):
    answered = await http("GET", "/v1/sessions", key=environment_key)
    assert "environment key" in answered.json()["error"]["message"]


async def test_a_key_of_no_known_item_sees_nothing(http, services):
    key = services.keyring._sessions_token("work_none", 0)
    assert (await http("GET", "/v1/sessions/sesn_1", key=key)).status_code == 404


async def test_a_body_that_is_not_json_is_a_400(http):
    assert (await http("POST", "/v1/agents", [])).status_code == 400

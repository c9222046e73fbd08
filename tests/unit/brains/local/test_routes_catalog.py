"""Who may use the routes of agents and environments."""

import pytest


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/agents"),
        ("POST", "/v1/agents"),
        ("GET", "/v1/agents/agent_1"),
        ("POST", "/v1/agents/agent_1/archive"),
        ("GET", "/v1/environments"),
        ("DELETE", "/v1/environments/env_1"),
        ("POST", "/v1/environments/env_1/archive"),
    ],
)
async def test_they_take_the_api_key_only(http, environment_key, method, path):
    answered = await http(method, path, {} if method == "POST" else None, key=environment_key)
    assert answered.status_code == 403
    assert answered.json()["error"]["type"] == "permission_error"


async def test_an_environment_with_sessions_is_not_deleted(http, make_session):
    await make_session('{"turns": [{"steps": [{"say": "x"}]}]}')
    assert (await http("DELETE", "/v1/environments/env_1")).status_code == 409
    assert (await http("DELETE", "/v1/environments/env_2")).status_code == 200
    assert (await http("GET", "/v1/environments/env_2")).status_code == 404


async def test_the_query_beta_is_ignored_and_cloud_environments_are_refused(http):
    assert (await http("GET", "/v1/environments?beta=true")).status_code == 200
    body = {"name": "c", "config": {"type": "cloud"}}
    refused = await http("POST", "/v1/environments?beta=true", body)
    assert refused.status_code == 400
    assert "cloud" in refused.json()["error"]["message"]

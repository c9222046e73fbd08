"""Who reaches vaults: the API key; and the sealed credentials of a session: its hands."""

import pytest

AUTH = {
    "type": "environment_variable",
    "secret_name": "TOKEN",
    "secret_value": "sk-the-real-secret-value",
    "networking": {"type": "limited", "allowed_hosts": ["api.example.com"]},
}


@pytest.fixture
async def vault(http):
    return (await http("POST", "/v1/vaults", {"display_name": "v"})).json()["id"]


async def test_hands_see_sealed_credentials_and_no_vault(http, vault, environment_key):
    made = await http("POST", f"/v1/vaults/{vault}/credentials", {"auth": AUTH})
    body = {"name": "a", "model": "scripted", "system": '{"turns": [{"steps": [{"say": "x"}]}]}'}
    agent = (await http("POST", "/v1/agents", body)).json()["id"]
    session = await http(
        "POST",
        "/v1/sessions",
        {"agent": agent, "environment_id": "env_1", "vault_ids": [vault]},
    )
    assert session.json()["vault_ids"] == [vault]
    path = f"/v1/sessions/{session.json()['id']}/credentials"
    [given] = (await http("GET", path, key=environment_key)).json()["data"]
    assert set(given) == {"variable", "sealed", "allowed_hosts", "locations"}
    assert (await http("GET", path)).status_code == 403
    for where in ("/v1/vaults", f"/v1/vaults/{vault}", f"/v1/vaults/{vault}/credentials"):
        assert (await http("GET", where, key=environment_key)).status_code == 403
    await http("POST", f"/v1/vaults/{vault}/credentials/{made.json()['id']}/archive", {})
    assert (await http("GET", path, key=environment_key)).json()["data"] == []


async def test_a_session_takes_only_open_vaults(http, vault):
    body = {"name": "a", "model": "scripted", "system": '{"turns": [{"steps": [{"say": "x"}]}]}'}
    agent = (await http("POST", "/v1/agents", body)).json()["id"]

    async def status(*vaults):
        body = {"agent": agent, "environment_id": "env_1", "vault_ids": list(vaults)}
        return (await http("POST", "/v1/sessions", body)).status_code

    assert await status(vault) == 200
    assert await status(vault, vault) == 400
    assert await status("vlt_none") == 404
    await http("POST", f"/v1/vaults/{vault}/archive", {})
    assert await status(vault) == 400


async def test_no_credential_is_for_mcp(http, vault):
    made = await http("POST", f"/v1/vaults/{vault}/credentials", {"auth": AUTH})
    path = f"/v1/vaults/{vault}/credentials/{made.json()['id']}/mcp_oauth_validate"
    refused = await http("POST", path, {})
    assert refused.status_code == 400
    assert "not mcp_oauth" in refused.json()["error"]["message"]

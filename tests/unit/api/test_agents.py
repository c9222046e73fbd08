"""What the operator decides for agents, over HTTP."""

import httpx2
import pytest

from api_stand_in import Served

POLICY = {"name": "web", "rules": []}


async def test_put_get_list(served: Served, http: httpx2.AsyncClient) -> None:
    await http.put("/api/policies/web", json=POLICY)
    body = {"tier": "namespace", "policy": "web"}
    written = (await http.put("/api/agents/agent_1", json=body)).json()
    assert {name: written[name] for name in body} == body
    assert (await http.get("/api/agents/agent_1")).json() == written
    assert (await http.get("/api/agents")).json() == {"data": [written]}
    assert served.sandboxes.refreshed == ["web", ""]


async def test_variables_name_secrets_that_exist(http: httpx2.AsyncClient) -> None:
    secret = {"hosts": ["api.example.org"], "value": "sk-0123456789"}
    await http.put("/api/secrets/github", json=secret)
    body = {"variables": {"GITHUB_TOKEN": "github"}}
    written = (await http.put("/api/agents/agent_1", json=body)).json()
    assert written["variables"] == body["variables"]
    assert "sk-0123456789" not in str(written)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"tier": "docker"}, "tier"),
        ({"policy": "none"}, "policy"),
        ({"variables": {"TOKEN": "none"}}, "variables"),
        ({"variables": {"PATH": "none"}}, "variable 'PATH'"),
    ],
)
async def test_what_does_not_exist_is_not_written(
    http: httpx2.AsyncClient, body: dict[str, str], names: str
) -> None:
    answer = await http.put("/api/agents/agent_1", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(names)
    assert (await http.get("/api/agents/agent_1")).status_code == 404

"""What the operator decides for agents, over HTTP."""

from pathlib import Path

import httpx2
import pytest

from api_stand_in import Served, served_api

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


async def test_an_agent_is_one_of_an_environment(tmp_path: Path) -> None:
    async with (
        served_api(tmp_path, environment_ids=("env_1", "env_2")) as served,
        httpx2.AsyncClient(
            base_url=served.url, headers=served.authorization, trust_env=False
        ) as http,
    ):
        unnamed = await http.put("/api/agents/agent_1", json={})
        assert unnamed.status_code == 400
        assert "served: env_1, env_2" in unnamed.json()["error"]["message"]
        unknown = await http.put("/api/agents/agent_1", json={"environment": "env_3"})
        assert unknown.status_code == 400
        body = {"environment": "env_2", "tier": "namespace"}
        written = (await http.put("/api/agents/agent_1", json=body)).json()
        assert written["environment_id"] == "env_2"
        at = "/api/agents/agent_1?environment="
        assert (await http.get(at + "env_2")).json() == written
        assert (await http.get(at + "env_1")).status_code == 404
        assert (await http.get("/api/agents/agent_1")).status_code == 400


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


async def test_size_and_image_are_checked_when_they_are_decided(http: httpx2.AsyncClient) -> None:
    put = await http.put("/api/agents/agent_1", json={"size": "small", "image": "host"})
    assert (put.json()["size"], put.json()["image"]) == ("small", "host")
    exact = {"memory_mib": 300, "disk_mib": 700}
    put = await http.put("/api/agents/agent_1", json={"limits": exact})
    assert put.json()["limits"].items() >= exact.items()
    for wrong, said in [
        ({"size": "huge"}, "small, standard, large"),
        ({"size": "small", "limits": exact}, "not both"),
        ({"limits": {"memory_mib": 0}}, "memory_mib"),
        ({"image": "none"}, "no image"),
    ]:
        answer = await http.put("/api/agents/agent_1", json=wrong)
        assert (answer.status_code >= 400, said in answer.text) == (True, True)

"""Policies over HTTP: written whole or not at all, tried offline, kept while in use."""

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api_stand_in import Served
from handiwork.api.policies import canonical_request
from handiwork.model.errors import ConfigError

TOML = b"""
name = "web"
[[rules]]
id = "docs"
action = "allow"
match = { hosts = ["docs.test"], methods = ["GET"], paths = ["/v1/*"] }
[[rules]]
id = "rest"
action = "deny"
reason = "ask first"
match = { hosts = ["*"] }
"""
AS_TOML = {"content-type": "application/toml"}


async def test_toml_and_json(served: Served, http: httpx2.AsyncClient) -> None:
    written = await http.put("/api/policies/web", content=TOML, headers=AS_TOML)
    assert (written.status_code, written.json()["version"]) == (200, 1)
    policy = (await http.get("/api/policies/web")).json()
    assert [rule["id"] for rule in policy["rules"]] == ["docs", "rest"]
    again = await http.put("/api/policies/web", json=policy)
    assert again.json()["version"] == 2
    [listed] = (await http.get("/api/policies")).json()["data"]
    assert (listed["version"], listed["policy"]) == (2, policy)
    assert served.sandboxes.refreshed == ["web", "web"]


@pytest.mark.parametrize(
    ("path", "content", "type", "told"),
    [
        ("web", TOML.replace(b"allow", b"alow"), "application/toml", "rule 'docs'"),
        ("web", b'{"name":"web","rules":[],"rule":[]}', "application/json", "rule"),
        ("other", TOML, "application/toml", "web"),
        ("web", TOML, "text/plain", "content-type"),
        ("web", b"\xff", "application/toml", "UTF-8"),
        ("web", b"name = ", "application/toml", "TOML"),
    ],
)
async def test_a_bad_policy_changes_nothing(
    http: httpx2.AsyncClient, path: str, content: bytes, type: str, told: str
) -> None:
    answer = await http.put(
        f"/api/policies/{path}", content=content, headers={"content-type": type}
    )
    assert answer.status_code == 400
    assert told in answer.json()["error"]["message"]
    assert (await http.get("/api/policies")).json()["data"] == []


async def test_one_in_use_stays(served: Served, http: httpx2.AsyncClient) -> None:
    await http.put("/api/policies/web", content=TOML, headers=AS_TOML)
    await http.put("/api/agents/agent_1", json={"policy": "web"})
    refused = await http.delete("/api/policies/web")
    assert refused.status_code == 409
    assert "agent_1" in refused.json()["error"]["message"]
    await http.put("/api/agents/agent_1", json={})
    assert (await http.delete("/api/policies/web")).status_code == 204
    assert (await http.get("/api/policies/web")).status_code == 404
    assert (await http.delete("/api/policies/web")).status_code == 404


@pytest.mark.parametrize(
    ("body", "allowed", "rule"),
    [
        ({"url": "https://docs.test/v1/a"}, True, "tenant:web/docs"),
        ({"url": "https://DOCS.test:443/v1/../v1/a"}, True, "tenant:web/docs"),
        ({"url": "https://docs.test/v1/../v2"}, False, "tenant:web/rest"),
        ({"url": "https://docs.test/v1/a", "method": "POST"}, False, "tenant:web/rest"),
        ({"url": "http://docs.test/"}, False, "tenant:web/default"),
    ],
)
async def test_a_try_says_what_and_why(
    http: httpx2.AsyncClient, body: dict[str, str], allowed: bool, rule: str
) -> None:
    await http.put("/api/policies/web", content=TOML, headers=AS_TOML)
    tried = (await http.post("/api/policies/web/test", json=body)).json()
    assert tried["decision"]["allowed"] is allowed
    assert tried["decision"]["rules"][-1] == rule
    assert tried["steps"]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "docs.test",
        "ftp://a.test/",
        "https://",
        "https://a@b.test/",
        "https://a.test:0/",
        "https://a.test/\\",
        "https://0x7f.1/",
        "https://[::1",
        "https://a.test:99999/",
    ],
)
async def test_a_url_without_canonical_form_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^url"):
        canonical_request("GET", url)


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    for url in (text, f"https://{text}", f"https://a.test/{text}"):
        try:
            request = canonical_request("GET", url)
        except ConfigError:
            continue
        assert request.path.startswith("/")


async def test_a_policy_whose_secret_is_not_set(served: Served, http: httpx2.AsyncClient) -> None:
    inject = b"""
name = "web"
[[rules]]
id = "api"
action = "inject"
match = { hosts = ["api.test"] }
inject = [{ header = "authorization", value = "Bearer ${secret:api}" }]
"""
    refused = await http.put("/api/policies/web", content=inject, headers=AS_TOML)
    assert refused.status_code == 409
    assert "secret set api" in refused.json()["error"]["message"]
    assert (await http.get("/api/policies")).json()["data"] == []
    secret = {"value": "a-value-of-some-length", "hosts": ["api.test"]}
    assert (await http.put("/api/secrets/api", json=secret)).status_code == 200
    assert (await http.put("/api/policies/web", content=inject, headers=AS_TOML)).status_code == 200

"""Hooks over HTTP, and what policies that name them are held to."""

from pathlib import Path

import httpx2
import pytest

from api_stand_in import Served, served_api


def policy(*hooks: str) -> dict[str, object]:
    rule = {"id": "r", "action": "hook", "match": {"hosts": ["a.test"]}, "hooks": hooks}
    return {"name": "web", "rules": [rule]}


async def test_they_are_listed_with_what_is_wrong(http: httpx2.AsyncClient) -> None:
    works, broken = (await http.get("/api/hooks")).json()["data"]
    assert (works["name"], works["stages"], works["error"]) == ("works", ["request"], "")
    assert (broken["stages"], broken["error"]) == ([], "line 1: invalid syntax")


@pytest.mark.parametrize("name", ["missing", "broken"])
async def test_a_policy_that_names_a_hook_that_is_not_there_is_refused_whole(
    http: httpx2.AsyncClient, name: str
) -> None:
    answer = await http.put("/api/policies/web", json=policy("works", name))
    assert answer.status_code == 400
    assert f"there is no hook '{name}' that works" in answer.text
    assert (await http.get("/api/policies/web")).status_code == 404
    assert (await http.put("/api/policies/web", json=policy("works"))).status_code == 200


async def test_where_hooks_are_off_no_policy_names_one(tmp_path: Path) -> None:
    async with (
        served_api(tmp_path, hooks=None) as served,
        httpx2.AsyncClient(base_url=served.url, headers=served.authorization) as http,
    ):
        assert (await http.get("/api/hooks")).json() == {"data": []}
        answer = await http.put("/api/policies/web", json=policy("works"))
        assert (answer.status_code, "hooks are off" in answer.text) == (400, True)


async def test_a_hook_cannot_be_granted_a_secret_that_is_not_set(
    served: Served, http: httpx2.AsyncClient
) -> None:
    asked = policy("works")
    asked["rules"][0]["secrets"] = ["key"]  # type: ignore[index]  # the test's own table
    answer = await http.put("/api/policies/web", json=asked)
    assert answer.status_code != 200
    assert "the secret 'key' is not set" in answer.text
    assert await served.store.policies.list() == []

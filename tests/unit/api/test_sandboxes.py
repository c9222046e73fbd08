"""Sandboxes over HTTP: made, listed, put to sleep, woken, deleted."""

import httpx2

from api_stand_in import Served


async def test_the_life_of_a_sandbox(served: Served, http: httpx2.AsyncClient) -> None:
    asked = {"tier": "namespace", "env": {"A": "1"}, "metadata": {"who": "me"}}
    made = await http.post("/api/sandboxes", json=asked)
    assert made.status_code == 201
    record = made.json()
    assert {name: record[name] for name in asked} == asked
    assert record["state"] == "running"
    path = f"/api/sandboxes/{record['id']}"
    assert (await http.get(path)).json() == record
    assert (await http.post(f"{path}/sleep")).json()["state"] == "sleeping"
    refused = await http.post(f"{path}/exec", json={"argv": ["echo"]})
    assert (refused.status_code, refused.json()["error"]["type"]) == (409, "conflict")
    assert (await http.post(f"{path}/wake")).json()["state"] == "running"
    assert [r["id"] for r in (await http.get("/api/sandboxes")).json()["data"]] == [record["id"]]
    assert (await http.delete(path)).status_code == 204
    assert (await http.get("/api/sandboxes")).json()["data"] == []
    gone = (await http.get("/api/sandboxes?include_gone=true")).json()["data"]
    assert [r["state"] for r in gone] == ["gone"]


async def test_a_caller_cannot_speak_for_a_session(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/sandboxes", json={"session_id": "sesn_1"})
    assert answer.status_code == 400


async def test_a_missing_policy_makes_nothing(served: Served, http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/sandboxes", json={"policy": "none"})
    assert answer.status_code == 404
    assert served.sandboxes.live == {}


async def test_a_sandbox_has_the_size_that_was_asked_for(http: httpx2.AsyncClient) -> None:
    made = await http.post("/api/sandboxes", json={"size": "large"})
    assert made.json()["limits"]["memory_mib"] == 8192
    made = await http.post("/api/sandboxes", json={"limits": {"memory_mib": 300}})
    assert made.json()["limits"]["memory_mib"] == 300
    for wrong in ({"size": "huge"}, {"size": "small", "limits": {}}, {"limits": {"pids": 0}}):
        assert (await http.post("/api/sandboxes", json=wrong)).status_code == 400

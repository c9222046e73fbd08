"""Processes over HTTP: started, listed, followed, signalled, removed."""

import json
from typing import Any

import httpx2
import pytest

from api_stand_in import Served


async def start(http: httpx2.AsyncClient, box: str, *argv: str) -> Any:
    made = await http.post(f"{box}/processes", json={"argv": argv})
    assert made.status_code == 201
    return made.json()


def lines(answer: httpx2.Response) -> list[Any]:
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_the_life_of_a_process(http: httpx2.AsyncClient, box: str) -> None:
    made = await start(http, box, "echo", "a")
    assert (made["state"], made["pid"]) == ("running", 7)
    one = f"{box}/processes/{made['id']}"
    first, second, last = lines(await http.get(f"{one}/logs?follow=true"))
    assert first == {"stream": "stdout", "data": "YQ=="}
    assert second == {"at": 1, "stream": "stderr", "data": "ZG9uZQ=="}
    assert (last["process"]["state"], last["process"]["exit_code"]) == ("exited", 0)
    assert lines(await http.get(f"{one}/logs?after=5")) == [last]
    assert (await http.get(one)).json() == {"process": last["process"], "listeners": []}
    assert (await http.get(f"{box}/processes")).json()["data"] == [last["process"]]
    assert (await http.delete(one)).status_code == 204
    assert (await http.get(f"{box}/processes")).json()["data"] == []
    assert (await http.get(one)).status_code == 404


async def test_it_runs_on_when_its_caller_has_left(
    served: Served, http: httpx2.AsyncClient, box: str
) -> None:
    made = await start(http, box, "sleep")
    one = f"{box}/processes/{made['id']}"
    async with http.stream("GET", f"{one}/logs?follow=true") as answer:
        async for line in answer.aiter_lines():
            assert json.loads(line)["data"] == "c2xlZXBpbmc="
            break
    found = (await http.get(one)).json()
    assert found["process"]["state"] == "running"
    assert [place["port"] for place in found["listeners"]] == [80]
    assert (await http.post(f"{one}/signal", json={"signal": 15})).status_code == 204
    assert lines(await http.get(f"{one}/logs?follow=true"))[-1]["process"]["state"] == "exited"
    (sandbox,) = served.sandboxes.live.values()
    assert sandbox.signals == [15]
    assert sandbox.requests[0].timeout_seconds is None


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"argv": []},
        {"argv": ["a\0"]},
        {"argv": ["a"], "env": {"": "x"}},
        {"argv": ["a"], "timeout_seconds": 1},
        {"argv": ["a"], "user": ""},
    ],
)
async def test_what_is_out_of_bounds_is_not_started(
    served: Served, http: httpx2.AsyncClient, box: str, body: dict[str, Any]
) -> None:
    assert (await http.post(f"{box}/processes", json=body)).status_code == 400
    (sandbox,) = served.sandboxes.live.values()
    assert sandbox.requests == []


async def test_what_is_not_there(http: httpx2.AsyncClient, box: str) -> None:
    made = await start(http, box, "sleep")
    other = (await http.post("/api/sandboxes", json={})).json()["id"]
    for path in (
        f"{box}/processes/proc_none",
        f"{box}/processes/proc_none/logs",
        f"/api/sandboxes/{other}/processes/{made['id']}",
        f"/api/sandboxes/{other}/processes/{made['id']}/logs",
        "/api/sandboxes/sbx_none/processes",
    ):
        assert (await http.get(path)).status_code == 404
    path = f"/api/sandboxes/{other}/processes/{made['id']}"
    assert (await http.delete(path)).status_code == 404
    assert (await http.post(f"{path}/signal", json={"signal": 9})).status_code == 404
    path = f"{box}/processes/{made['id']}/signal"
    for number in (0, 65):
        assert (await http.post(path, json={"signal": number})).status_code == 400

"""Code over HTTP: whole or as a stream, and dead as soon as its caller is."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from api_stand_in import PretendSandbox, Served


def only(served: Served) -> PretendSandbox:
    [sandbox] = served.sandboxes.live.values()
    return sandbox


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  what is awaited is a fact, not an event
            await asyncio.sleep(0.01)


async def test_a_value_is_json_itself(http: httpx2.AsyncClient, box: str) -> None:
    answer = await http.post(f"{box}/code", json={"code": "1 + ü"})
    assert answer.status_code == 200
    assert answer.json() == {
        "value": {"gave": "1 + ü"},
        "error": None,
        "logs": [{"level": "log", "text": "1 + ü"}],
        "logs_cut": False,
        "wall_seconds": 0.5,
    }


async def test_failing_is_a_result_and_our_fault_is_none(
    http: httpx2.AsyncClient, box: str
) -> None:
    answer = await http.post(f"{box}/code", json={"code": "fail"})
    assert answer.status_code == 200
    error = {"name": "TypeError", "message": "no", "stack": "", "limit": None}
    assert (answer.json()["value"], answer.json()["error"]) == (None, error)
    assert (await http.post(f"{box}/code", json={"code": "gone"})).status_code == 503


async def test_everything_asked_arrives(served: Served, http: httpx2.AsyncClient, box: str) -> None:
    limits = {"cpu_ms": 7, "wall_seconds": 2.5}
    body = {"code": "1", "language": "python", "name": "/a.py", "fresh": True, "limits": limits}
    await http.post(f"{box}/code", json=body)
    [request] = only(served).codes
    assert (request.language, request.name, request.fresh) == ("python", "/a.py", True)
    assert (request.limits.cpu_ms, request.limits.wall_seconds) == (7, 2.5)
    assert request.limits.calls == 10_000


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"code": 1},
        {"code": "1", "language": "ruby"},
        {"code": "1", "name": "relative"},
        {"code": "1", "name": "/a\0b"},
        {"code": "1", "more": 1},
        {"code": "1", "limits": {"cpu_ms": 0}},
        {"code": "1", "limits": {"cpu_ms": 3_600_001}},
        {"code": "1", "limits": {"wall_seconds": 3601}},
        {"code": "1", "limits": {"parallel_calls": -1}},
        {"code": "1", "limits": {"unknown": 1}},
        {"code": "x" * (4 * 1024 * 1024 + 1)},
    ],
)
@pytest.mark.parametrize("verb", ["code", "code/stream"])
async def test_what_is_out_of_bounds_does_not_run(
    served: Served, http: httpx2.AsyncClient, box: str, verb: str, body: dict[str, Any]
) -> None:
    answer = await http.post(f"{box}/{verb}", json=body)
    assert answer.status_code == 400
    assert only(served).codes == []


async def test_a_stream_tells_each_line_and_then_the_result(
    http: httpx2.AsyncClient, box: str
) -> None:
    answer = await http.post(f"{box}/code/stream", json={"code": "1"})
    assert answer.headers["content-type"] == "application/x-ndjson"
    first, last = [json.loads(line) for line in answer.text.splitlines()]
    assert first == {"log": {"level": "log", "text": "1"}}
    assert last["result"]["value"] == {"gave": "1"}


async def test_a_stream_tells_our_fault_as_its_last_line(
    http: httpx2.AsyncClient, box: str
) -> None:
    answer = await http.post(f"{box}/code/stream", json={"code": "gone"})
    [line] = [json.loads(line) for line in answer.text.splitlines()]
    assert "the cell is gone" in line["error"]["message"]


@pytest.mark.parametrize("verb", ["code", "code/stream"])
async def test_who_leaves_ends_the_run(
    served: Served, http: httpx2.AsyncClient, box: str, verb: str
) -> None:
    with pytest.raises(httpx2.TimeoutException):
        await http.post(f"{box}/{verb}", json={"code": "wait"}, timeout=0.3)
    await until(lambda: only(served).cancelled == 1)


async def test_a_sandbox_that_is_not_there(http: httpx2.AsyncClient) -> None:
    answer = await http.post("/api/sandboxes/sbx_none000000/code", json={"code": "1"})
    assert answer.status_code == 404

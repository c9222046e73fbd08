"""Watches over HTTP: what changes as lines, until the end or until the caller leaves."""

import asyncio
import json

import httpx2

from api_stand_in import Served


async def test_what_changes(served: Served, http: httpx2.AsyncClient, box: str) -> None:
    answer = await http.get(f"{box}/files/watch?path=/workspace")
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"directories": 3},
        {"event": {"change": "created", "path": "a\ufffd", "directory": True}},
        {"event": {"change": "overflow", "path": "", "directory": False}},
        {"gone": True},
    ]
    (sandbox,) = served.sandboxes.live.values()
    assert sandbox.files.watches == 0


async def test_leaving_closes_it(served: Served, http: httpx2.AsyncClient, box: str) -> None:
    (sandbox,) = served.sandboxes.live.values()
    path = f"{box}/files/watch?path=/workspace&recursive=false"
    async with http.stream("GET", path) as answer:
        async for _ in answer.aiter_lines():
            break
        assert sandbox.files.watches == 1
    async with asyncio.timeout(10):
        while sandbox.files.watches:  # noqa: ASYNC110  what is told is a number
            await asyncio.sleep(0.01)


async def test_what_is_not_there(http: httpx2.AsyncClient, box: str) -> None:
    answer = await http.get(f"{box}/files/watch?path=/none")
    error = json.loads(answer.text)["error"]
    assert (error["type"], error["errno"]) == ("guest", 2)
    assert (await http.get(f"{box}/files/watch")).status_code == 400
    missing = "/api/sandboxes/sbx_none/files/watch?path=/a"
    assert (await http.get(missing)).status_code == 404

"""The server stops cleanly and in bounded time, whatever is under way."""

import asyncio
import signal
from pathlib import Path

import httpx2
import pytest

from api_stand_in import served_api


async def test_a_stop_ends_what_is_under_way(tmp_path: Path) -> None:
    started = asyncio.Event()

    async def stream(http: httpx2.AsyncClient, path: str) -> str:
        async with http.stream("POST", f"{path}/exec/stream", json={"argv": ["sleep"]}) as answer:
            text = ""
            async for line in answer.aiter_lines():
                text += line
                started.set()
        return text

    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        async with served_api(tmp_path) as served:
            http = httpx2.AsyncClient(
                base_url=served.url, headers=served.authorization, trust_env=False
            )
            made = await http.post("/api/sandboxes", json={})
            streaming = group.create_task(stream(http, f"/api/sandboxes/{made.json()['id']}"))
            await started.wait()
        text = await streaming
        with pytest.raises(httpx2.ConnectError):
            await http.get("/healthz")
        await http.aclose()
    assert "result" not in text
    [sandbox] = served.sandboxes.live.values()
    assert sandbox.signals == [signal.SIGKILL]


async def test_a_call_that_does_not_end_is_cancelled(tmp_path: Path) -> None:
    async with asyncio.timeout(10):
        async with served_api(tmp_path) as served:
            http = httpx2.AsyncClient(
                base_url=served.url, headers=served.authorization, trust_env=False
            )
            made = (await http.post("/api/sandboxes", json={})).json()
            asking = asyncio.ensure_future(
                http.post(f"/api/sandboxes/{made['id']}/exec", json={"argv": ["sleep"]})
            )
            sandbox = served.sandboxes.live[made["id"]]
            while not sandbox.requests:  # noqa: ASYNC110  set by another task's call
                await asyncio.sleep(0.01)
        assert sandbox.cancelled == 1
        answer = await asking
        assert answer.status_code == 503
        assert "stopping" in answer.json()["error"]["message"]
        await http.aclose()


async def test_signals_stay_with_their_owner(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with served_api(tmp_path):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before

"""`/terminal`: the first message runs it, bytes are typed and shown, leaving kills it."""

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from api_stand_in import PretendSandbox, Served, served_api
from handiwork.api import terminal
from handiwork.model.sandbox import TerminalSize
from handiwork.sessions.sandbox_request import SandboxRequest


@pytest.fixture
def opening(served: Served, box: str) -> Callable[[], Any]:
    url = f"ws{served.url.removeprefix('http')}{box}/terminal"
    return lambda: connect(url, proxy=None, additional_headers=served.authorization)


def only(served: Served) -> PretendSandbox:
    (found,) = served.sandboxes.live.values()
    return found


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what is told is a list
            await asyncio.sleep(0.01)


async def last(socket: ClientConnection) -> Any:
    messages = [message async for message in socket]
    return json.loads(messages[-1])


async def test_what_is_typed_and_shown(served: Served, opening: Callable[[], Any]) -> None:
    async with opening() as socket:
        await socket.send('{"argv": ["cat"], "cwd": "/tmp", "size": {"columns": 9, "rows": 8}}')
        await socket.send(b"\x00\xff")
        assert await socket.recv() == b"\x00\xff"
        await socket.send('{"resize": {"columns": 7, "rows": 6}}')
        await socket.send('{"signal": 15}')
        await until(lambda: only(served).signals == [15])
    assert only(served).requests[0].argv == ("cat",)
    assert only(served).requests[0].timeout_seconds is None
    sizes = [TerminalSize(columns=9, rows=8), TerminalSize(columns=7, rows=6)]
    assert only(served).sizes == sizes


async def test_how_it_ended_is_told(served: Served, opening: Callable[[], Any]) -> None:
    async with opening() as socket:
        await socket.send('{"argv": ["false"]}')
        assert (await last(socket))["result"]["exit_code"] == 1
        assert socket.close_code == 1000
    assert only(served).signals == []


@pytest.mark.parametrize("command", ["sleep", "flood"])
async def test_leaving_kills(served: Served, opening: Callable[[], Any], command: str) -> None:
    async with opening() as socket:
        await socket.send(json.dumps({"argv": [command]}))
        await socket.recv()
    await until(lambda: only(served).signals == [signal.SIGKILL])


@pytest.mark.parametrize(
    "message",
    [
        b'{"argv": ["echo"]}',
        "{",
        '{"argv": []}',
        '{"argv": ["a\\u0000b"]}',
        '{"size": {"columns": 0, "rows": 1}}',
        '{"size": {"columns": 1001, "rows": 1}}',
        '{"env": {"": "x"}}',
        '{"timeout_seconds": 1}',
    ],
)
async def test_what_is_out_of_bounds_does_not_run(
    served: Served, opening: Callable[[], Any], message: bytes | str
) -> None:
    async with opening() as socket:
        await socket.send(message)
        assert (await last(socket))["error"]["type"] == "config"
    assert only(served).requests == []


async def test_who_says_nothing_is_not_waited_for(
    opening: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "FIRST_SECONDS", 0.05)
    async with opening() as socket:
        assert "did not come" in (await last(socket))["error"]["message"]


async def test_a_sandbox_that_is_not_there_is_told(served: Served) -> None:
    url = f"ws{served.url.removeprefix('http')}/api/sandboxes/sbx_none/terminal"
    async with connect(url, proxy=None, additional_headers=served.authorization) as socket:
        await socket.send("{}")
        assert (await last(socket))["error"]["type"] == "not_found"


async def test_a_stop_of_the_server_ends_it(tmp_path: Path) -> None:
    async with served_api(tmp_path) as served:
        record = await served.sandboxes.create(SandboxRequest())
        url = f"ws{served.url.removeprefix('http')}/api/sandboxes/{record.id}/terminal"
        socket = await connect(url, proxy=None, additional_headers=served.authorization)
        await socket.send('{"argv": ["sleep"]}')
        await socket.recv()
    await socket.wait_closed()
    assert only(served).signals == [signal.SIGKILL]

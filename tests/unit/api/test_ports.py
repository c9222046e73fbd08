"""Connections into a sandbox over a WebSocket."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from api_stand_in import PretendSandbox, Served
from handiwork.api import ports


@pytest.fixture
def opening(served: Served, box: str) -> Callable[[int], Any]:
    url = f"ws{served.url.removeprefix('http')}{box}/ports/"
    return lambda port: connect(f"{url}{port}", proxy=None, additional_headers=served.authorization)


def only(served: Served) -> PretendSandbox:
    (found,) = served.sandboxes.live.values()
    return found


async def told(socket: ClientConnection) -> Any:
    return json.loads(await socket.recv())


async def test_bytes_and_ends(served: Served, opening: Callable[[int], Any]) -> None:
    async with opening(7) as socket:
        assert await told(socket) == {"connected": True}
        await socket.send(b"\x00\xff")
        assert await socket.recv() == b"\x00\xff"
        await socket.send('{"finish": true}')
        assert await told(socket) == {"finished": True}
        await socket.wait_closed()
        assert socket.close_code == 1000
    assert only(served).ports == [7]
    assert only(served).open_ports == 0


async def test_leaving_closes(served: Served, opening: Callable[[int], Any]) -> None:
    async with opening(7) as socket:
        await told(socket)
        assert only(served).open_ports == 1
    async with asyncio.timeout(10):
        while only(served).open_ports:  # noqa: ASYNC110  what is told is a number
            await asyncio.sleep(0.01)


async def test_nobody_listens(opening: Callable[[int], Any]) -> None:
    async with opening(9) as socket:
        error = (await told(socket))["error"]
        assert (error["type"], error["errno"]) == ("guest", 111)


async def test_a_break_is_told_once(opening: Callable[[int], Any]) -> None:
    async with opening(8) as socket:
        await told(socket)
        await socket.send(b"x")
        assert (await told(socket))["error"]["errno"] == 104
        await socket.wait_closed()


@pytest.mark.parametrize("message", ["{", "{}", '{"other": 1}'])
async def test_a_text_that_says_nothing_ends_it(
    opening: Callable[[int], Any], message: str
) -> None:
    async with opening(7) as socket:
        await told(socket)
        await socket.send(message)
        assert (await told(socket))["error"]["type"] == "config"


async def test_a_program_that_never_reads_is_not_waited_for(
    opening: Callable[[int], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "UNREAD_SECONDS", 0.05)
    async with opening(6) as socket:
        await told(socket)
        await socket.send(b"x")
        assert (await told(socket))["error"]["errno"] == 11

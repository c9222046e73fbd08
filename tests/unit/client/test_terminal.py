"""`box.terminal()` against a real API, over TCP and the unix socket."""

import signal

import pytest

from api_stand_in import Served
from handiwork import Handiwork
from handiwork.model.errors import HandiworkError, UnauthorizedError
from handiwork.model.sandbox import TerminalSize


async def test_bytes_both_ways(served: Served, hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    data = bytes(range(256)) * 1024
    async with box.terminal(["cat"], columns=100, rows=30, env={"A": "1"}) as terminal:
        await terminal.write(data)
        shown = b""
        async for piece in terminal.output():
            shown += piece
            if len(shown) == len(data):
                break
        assert shown == data
        await terminal.resize(90, 20)
    sandbox = served.sandboxes.live[box.id]
    assert sandbox.requests[0].env == {"A": "1"}
    wanted = [TerminalSize(columns=100, rows=30), TerminalSize(columns=90, rows=20)]
    assert sandbox.sizes == wanted


async def test_the_end_is_told(hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    async with box.terminal("true") as terminal:
        assert (await terminal.wait()).exit_code == 0
    async with box.terminal(["sleep"]) as terminal:
        await terminal.signal(signal.SIGTERM)
        assert (await terminal.wait()).exit_code == 137


async def test_errors_are_those_of_the_tree(served: Served, hw: Handiwork) -> None:
    box = await hw.sandboxes.create()
    await box.close()
    with pytest.raises(HandiworkError, match="gone"):
        async with box.terminal("true") as terminal:
            await terminal.wait()
    async with Handiwork(base_url=served.url, api_key="wrong") as stranger:
        stranger_box = type(box)(stranger._link, box.record)
        with pytest.raises(UnauthorizedError):
            async with stranger_box.terminal("true"):
                raise AssertionError
    async with Handiwork(base_url="http://127.0.0.1:9") as nobody:
        with pytest.raises(HandiworkError, match="cannot be reached"):
            async with type(box)(nobody._link, box.record).terminal("true"):
                raise AssertionError

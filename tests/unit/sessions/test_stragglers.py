"""Runs that nobody can end: they are not waited for, and they are bounded."""

import asyncio

import pytest

from handiwork.model.errors import ToolFailedError
from handiwork.sessions import stragglers as module
from handiwork.sessions.stragglers import Stragglers
from session_world import until


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GRACE_SECONDS", 0.02)
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.02)


class Stubborn:
    """A tool that swallows so many cancellations."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.began = asyncio.Event()

    async def run(self) -> str:
        self.began.set()
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.left -= 1
                if self.left == 0:
                    raise ValueError("at last") from None


async def cancelled(owner: Stragglers, tool: Stubborn) -> None:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(owner.run(tool.run(), "stubborn"))
        await tool.began.wait()
        task.cancel()
    assert task.cancelled()


async def test_a_result_and_an_error_come_through() -> None:
    owner = Stragglers()

    async def fails() -> None:
        raise ZeroDivisionError

    assert await owner.run(asyncio.sleep(0, "x"), "a") == "x"
    with pytest.raises(ZeroDivisionError):
        await owner.run(fails(), "b")
    assert len(owner) == 0


async def test_a_tool_that_cancels_itself_fails() -> None:
    async def odd() -> None:
        raise asyncio.CancelledError

    with pytest.raises(ToolFailedError, match="cancelled itself"):
        await Stragglers().run(odd(), "odd")


async def test_one_that_goes_on_is_cancelled_again_until_it_ends() -> None:
    owner, tool = Stragglers(), Stubborn(3)
    await cancelled(owner, tool)
    assert len(owner) == 1
    await until(lambda: len(owner) == 0)
    assert tool.left == 0


async def test_one_that_ends_in_its_grace_leaves_nothing() -> None:
    owner = Stragglers()
    await cancelled(owner, Stubborn(1))
    assert len(owner) == 0


async def test_with_too_many_of_them_none_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STRAGGLERS", 1)
    owner, first, second = Stragglers(), Stubborn(4), Stubborn(1)
    await cancelled(owner, first)
    with pytest.raises(ToolFailedError, match="1 cancelled runs"):
        await owner.run(second.run(), "second")
    assert not second.began.is_set()
    await until(lambda: len(owner) == 0)

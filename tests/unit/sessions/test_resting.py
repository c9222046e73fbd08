"""Who stands still: until it is wanted, its time is over, or memory is short."""

import asyncio
import contextlib

import pytest

from handiwork.config import SandboxSettings
from handiwork.model.errors import SandboxUnavailableError
from handiwork.sessions import resting as module
from handiwork.sessions.resting import Resting
from session_world import until


class Box:
    """Frozen while somebody holds it so; `fails` on the way in or out."""

    def __init__(self, fails: str = "") -> None:
        self.is_frozen = False
        self.fails = fails

    @contextlib.asynccontextmanager
    async def resting(self):
        if self.fails == "in":
            raise SandboxUnavailableError("one process cannot be held")
        self.is_frozen = True
        try:
            yield
        finally:
            self.is_frozen = False
        if self.fails == "out":
            raise SandboxUnavailableError("one process woke itself")


def soon(seconds: float = 600.0) -> float:
    return asyncio.get_running_loop().time() + seconds


@contextlib.asynccontextmanager
async def world(seconds: float = 600.0, memory: list[float | None] | None = None):
    """Yield the resting and the list of those that it calls ripe; nobody is left after."""
    ripe: list[str] = []
    memory = [4096.0] if memory is None else memory
    settings = SandboxSettings(freeze_seconds=seconds, freeze_min_free_memory_mib=2048)
    async with asyncio.TaskGroup() as group:
        resting = Resting(settings, group, ripe.append, lambda: memory[0])
        yield resting, ripe
        for name in resting.oldest_first():
            await resting.thaw(name)


async def test_one_stands_until_it_is_thawed():
    async with world() as (resting, ripe):
        box = Box()
        await resting.freeze("a", box, soon())
        assert box.is_frozen
        assert "a" in resting
        assert await resting.thaw("a")
        assert not box.is_frozen
        assert "a" not in resting
        assert not await resting.thaw("a")
        assert ripe == []


async def test_the_oldest_is_first():
    async with world() as (resting, _):
        for name in "abc":
            await resting.freeze(name, Box(), soon())
        await resting.thaw("a")
        await resting.freeze("a", Box(), soon())
        assert (len(resting), resting.oldest_first()) == (3, ["b", "c", "a"])


async def test_one_is_ripe_when_its_time_is_over_and_stands_until_it_is_thawed(monkeypatch):
    """It is told again and again: who is told may be unable to do anything at that moment."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    async with world() as (resting, ripe):
        box = Box()
        await resting.freeze("a", box, soon(0.02))
        await until(lambda: ripe == ["a"] * 3)
        assert box.is_frozen


async def test_all_are_ripe_when_memory_is_short(monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    memory: list[float | None] = [4096.0]
    async with world(memory=memory) as (resting, ripe):
        assert resting.permitted()
        for name in "ab":
            await resting.freeze(name, Box(), soon())
        memory[0] = 2047.0
        assert not resting.permitted()
        await until(lambda: set(ripe) == {"a", "b"})


async def test_a_kernel_that_does_not_tell_its_memory_has_enough():
    async with world(memory=[None]) as (resting, _):
        assert resting.permitted()
    async with world(0.0) as (resting, _):
        assert not resting.permitted()


async def test_memory_that_cannot_be_read_is_short():
    def unreadable():
        raise OSError(24, "too many open files")

    async with asyncio.TaskGroup() as group:
        assert not Resting(SandboxSettings(freeze_seconds=9), group, print, unreadable).permitted()


async def test_who_cannot_be_held_is_told_and_does_not_stand():
    async with world() as (resting, _):
        with pytest.raises(SandboxUnavailableError, match="cannot be held"):
            await resting.freeze("a", Box("in"), soon())
        assert "a" not in resting


async def test_who_woke_itself_goes_on_all_the_same():
    async with world() as (resting, _):
        await resting.freeze("a", Box("out"), soon())
        assert await resting.thaw("a")
        assert "a" not in resting


async def test_cancelled_they_all_go_on():
    box = Box()

    async def fails_meanwhile():
        async with world() as (resting, _):
            await resting.freeze("a", box, soon())
            raise RuntimeError

    with pytest.raises(ExceptionGroup):
        await fails_meanwhile()
    assert not box.is_frozen

"""Who was woken and is not used rests again; who is used does not."""

import asyncio
import contextlib

from handiwork.model.errors import NotFoundError
from handiwork.sessions.idle import Idle
from session_world import until


async def nothing(sandbox_id: str) -> None:
    """Nobody comes while it is asked."""


@contextlib.asynccontextmanager
async def watching(seconds: float, used: set[str], asked=nothing):
    rested: list[str] = []

    async def may_rest(sandbox_id: str) -> bool:
        if sandbox_id == "gone":
            raise NotFoundError("it was closed")
        await asked(sandbox_id)
        return sandbox_id != "by hand"

    idle = Idle(seconds, used.__contains__, may_rest, rested.append)
    task = asyncio.create_task(idle.watch())
    try:
        yield idle, rested
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_one_rests_once_when_nobody_uses_it():
    async with watching(0.05, set()) as (idle, rested):
        idle.used("a")
        await until(lambda: rested == ["a"])
        await asyncio.sleep(0.1)
        assert rested == ["a"]


async def test_one_that_is_used_stays_and_rests_after():
    used = {"a"}
    async with watching(0.05, used) as (idle, rested):
        idle.used("a")
        idle.used("b")
        await until(lambda: rested == ["b"])
        await asyncio.sleep(0.1)
        assert rested == ["b"]
        used.clear()
        await until(lambda: rested == ["b", "a"])


async def test_who_may_not_rest_or_is_gone_is_left_alone():
    async with watching(0.05, set()) as (idle, rested):
        for name in ("by hand", "gone", "a"):
            idle.used(name)
        await until(lambda: rested == ["a"])
        await asyncio.sleep(0.1)
        assert rested == ["a"]


async def test_one_that_is_used_while_it_is_asked_does_not_rest():
    came = []

    async def comes(sandbox_id: str) -> None:
        if not came:
            came.append(asyncio.get_running_loop().time())
            idle.used(sandbox_id)

    async with watching(0.2, set(), comes) as (idle, rested):
        idle.used("a")
        await until(lambda: rested == ["a"])
        assert asyncio.get_running_loop().time() - came[0] >= 0.2


async def test_without_seconds_all_stay():
    async with watching(0, set()) as (idle, rested):
        idle.used("a")
        await asyncio.sleep(0.05)
        assert rested == []

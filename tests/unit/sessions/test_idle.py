"""Who was woken and is not used rests again; who is used does not."""

import asyncio
import contextlib

from handiwork.sessions.idle import Idle
from session_world import until


@contextlib.asynccontextmanager
async def watching(seconds: float, used: set[str]):
    rested: list[str] = []

    async def rest(sandbox_id: str) -> None:
        rested.append(sandbox_id)

    idle = Idle(seconds, used.__contains__, rest)
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


async def test_without_seconds_all_stay():
    async with watching(0, set()) as (idle, rested):
        idle.used("a")
        await asyncio.sleep(0.05)
        assert rested == []

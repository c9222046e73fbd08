"""Threads for copies: so many at once, and what nobody waits for behind them."""

import asyncio
import threading

from handiwork.sandboxes.copying import PARALLEL, Copying


async def test_no_more_copy_at_once_than_there_are_threads():
    copying, may_end = Copying(), threading.Event()
    running, most = 0, 0

    async def copy():
        nonlocal running, most
        async with copying.place() as threads:
            running += 1
            most = max(most, running)
            await asyncio.get_running_loop().run_in_executor(threads, may_end.wait, 20)
            running -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(PARALLEL + 2):
            group.create_task(copy())
        while running < PARALLEL:  # noqa: ASYNC110  threads tell nothing
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        assert running == PARALLEL
        may_end.set()
    assert most == PARALLEL


async def test_what_nobody_waits_for_runs_also_while_all_copy_and_tells_a_failure():
    copying, may_end, told = Copying(), threading.Event(), asyncio.Event()
    said = []

    def fails():
        raise OSError("the disk is full")

    def failed(why):
        said.append(why)
        told.set()

    async with copying.place() as threads:
        waits = asyncio.get_running_loop().run_in_executor(threads, may_end.wait, 20)
        copying.later(fails, failed)
        await asyncio.wait_for(told.wait(), 20)
        may_end.set()
        await waits
    assert said == ["the disk is full"]

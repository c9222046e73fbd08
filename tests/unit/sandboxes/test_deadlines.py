"""Deadlines of requests, with a clock that can be stopped."""

import asyncio

import pytest

from handiwork.sandboxes.deadlines import Deadlines


@pytest.fixture
async def found():
    late = []
    deadlines = Deadlines(asyncio.get_running_loop(), late.append)
    yield deadlines, late
    deadlines.clear_all()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  what is told is a list
            await asyncio.sleep(0.005)


async def test_a_deadline_that_passes_is_told_once(found):
    deadlines, late = found
    deadlines.set(1, 0.01)
    deadlines.set(2, 60)
    await until(lambda: late)
    await asyncio.sleep(0.02)
    assert late == [0.01]


async def test_what_is_cleared_is_not_told(found):
    deadlines, late = found
    deadlines.set(1, 0.01)
    deadlines.set(2, 0.01)
    deadlines.clear(1)
    deadlines.clear(1)
    deadlines.clear_all()
    await asyncio.sleep(0.03)
    assert late == []


async def test_nothing_is_late_while_the_clock_stands(found):
    deadlines, late = found
    deadlines.set(1, 0.05)
    deadlines.pause()
    deadlines.pause()
    deadlines.set(2, 0.06)
    deadlines.set(3, 0.07)
    deadlines.clear(3)
    await asyncio.sleep(0.15)
    assert late == []
    deadlines.resume()
    deadlines.resume()
    await until(lambda: len(late) == 2)
    assert late == [0.05, 0.06]

"""Cells that stand ready, of zygotes that are stood in for."""

import asyncio
import errno
import os
import sys
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.isolate import pool as module
from handiwork.sandboxes.isolate.cells import Cell
from handiwork.sandboxes.isolate.pool import Pool, Renewal
from handiwork.sandboxes.isolate.zygotes import Shape

PROGRAM = Path(__file__).parents[3] / "stand_in_zygote_program.py"


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path, clock):
    def pool(size=2, *, mode="good", **renewal):
        path = tmp_path / "program"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -I {PROGRAM} {mode} "$@"\n')
        path.chmod(0o755)
        given = {"renewal": Renewal(**renewal), "program": path, "clock": clock}
        return Pool(Shape(), size=size, user_id=0, **given)

    return pool


async def until(condition):
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came to be")


async def full(pool, size=2):
    await until(lambda: pool.ready == size)


async def test_so_many_stand_ready_and_each_is_given_once(make):
    async with make() as pool:
        await full(pool)
        taken = [await pool.take() for _ in range(5)]
        assert len({id(cell) for cell in taken}) == 5
        assert all(cell.alive for cell in taken)
        await full(pool)
    assert not any(cell.alive for cell in taken)
    with pytest.raises(SandboxUnavailableError, match="is closed"):
        await pool.take()


async def test_without_any_ready_one_is_made(make):
    async with make(0) as pool:
        assert (await pool.take()).alive
        assert pool.ready == 0


async def test_one_that_ended_while_it_stood_ready_is_not_given(make):
    async with make() as pool:
        await full(pool)
        pool._ready[0].close()
        assert (await pool.take()).alive


@pytest.mark.parametrize("renewal", [{"forks": 3}, {"seconds": 10.0}])
async def test_a_zygote_is_replaced_and_its_cells_live_on(make, clock, renewal):
    async with make(**renewal) as pool:
        await full(pool)
        first, pid = await pool.take(), pool._zygote._process.pid
        clock.now = 11.0
        await full(pool)
        others = [await pool.take() for _ in range(2)]
        assert all(cell.alive for cell in others)
        await full(pool)
        assert pool._zygote._process.pid != pid
        assert first.alive
        assert Path(f"/proc/{pid}").exists()
        for cell in (first, *others):
            cell.close()
        await until(lambda: not Path(f"/proc/{pid}").exists())


async def test_a_zygote_that_died_is_replaced(make):
    async with make() as pool:
        await full(pool)
        os.kill(pool._zygote._process.pid, 9)
        await full(pool, 0)
        assert (await pool.take()).alive
        await full(pool)


async def test_what_cannot_be_made_is_told_and_tried_again(make, monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    async with make(mode="full") as pool:
        with pytest.raises(SandboxUnavailableError, match="could be forked"):
            await pool.take()
        os.kill(pool._zygote._process.pid, 9)
        make()  # writes a program that works
        await full(pool)


async def test_what_goes_with_a_cell_is_made_beside_it(make, monkeypatch):
    made = []
    pool = make(3)
    pool._beside = lambda: made.append(pool.ready)
    async with pool:
        await full(pool, 3)
        assert made == [0, 1, 2]


async def test_whoever_took_one_runs_before_the_next_is_made(make, monkeypatch):
    async with make() as pool:
        await full(pool)
        monkeypatch.setattr(module, "REFILL_SECONDS", 60)
        await pool.take()
        await asyncio.sleep(0.05)
        assert pool.ready == 1
        monkeypatch.setattr(module, "REFILL_SECONDS", 0)


async def test_one_that_does_not_warm_up_does_not_stand_ready(make, monkeypatch):
    async def fails(cell):
        raise SandboxUnavailableError("no")

    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr("handiwork.sandboxes.isolate.cells.Cell.warm_up", fails)
    async with make() as pool:
        await until(lambda: pool._zygote is not None and pool._zygote.forked >= 3)
        assert (pool.ready, pool._zygote.cells) == (0, 0)


async def test_one_that_nobody_wants_by_the_time_it_is_warm_is_ended(make, monkeypatch):
    warm_up = Cell.warm_up

    async def meanwhile(cell):
        await warm_up(cell)
        pool.resize(0)

    monkeypatch.setattr(Cell, "warm_up", meanwhile)
    async with make() as pool:
        await until(lambda: pool._zygote is not None and pool._zygote.forked >= 1)
        await until(lambda: pool._zygote.cells == 0)
        assert pool.ready == 0


async def test_a_disk_that_is_full_ends_no_pool(make, monkeypatch):
    failures = [OSError(errno.ENOSPC, "full")]

    def beside():
        if failures:
            raise failures.pop()

    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    pool = make()
    pool._beside = beside
    async with pool:
        await until(lambda: pool.ready == 2)
        await until(lambda: pool._zygote.cells == 2)

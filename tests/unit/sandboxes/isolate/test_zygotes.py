"""A zygote's control socket, with a stand-in for the program at its other end."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.isolate import zygotes
from handiwork.sandboxes.isolate.zygotes import Cause, End, Shape, Zygote

PROGRAM = Path(__file__).parents[3] / "stand_in_zygote_program.py"


@pytest.fixture
def program(tmp_path):
    """Return a stand-in that behaves so."""

    def make(mode="good"):
        path = tmp_path / mode
        path.write_text(f'#!/bin/sh\nexec {sys.executable} -I {PROGRAM} {mode} "$@"\n')
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
async def zygote(program):
    async with await Zygote.start(Shape(), user_id=0, program=program()) as found:
        yield found


async def forked(zygote):
    ended = asyncio.get_running_loop().create_future()
    number, end = await zygote.fork(ended.set_result)
    return number, end, ended


async def test_it_forks_and_ends(zygote):
    assert (zygote.holds, zygote.alive, zygote.cells) == (15, True, 0)
    number, end, ended = await forked(zygote)
    assert (zygote.cells, zygote.forked) == (1, 1)
    zygote.end(number)
    assert await ended == End(Cause.DEMAND, 137, 0.0)
    assert await asyncio.get_running_loop().sock_recv(end, 1) == b""
    await zygote.emptied()
    zygote.end(number)  # gone already
    assert zygote.alive
    end.close()


async def test_one_that_ends_of_itself_is_told(zygote):
    _, end, ended = await forked(zygote)
    end.close()
    assert (await ended).cause is Cause.ITSELF


async def test_one_that_is_over_as_soon_as_it_is_forked_is_told(program):
    async with await Zygote.start(Shape(), user_id=0, program=program("stillborn")) as zygote:
        _, end, ended = await forked(zygote)
        assert (await ended).code == 1
        assert zygote.cells == 0
        end.close()


async def test_what_finds_no_room_waits_and_nothing_is_lost(program):
    """More messages at once than the socket holds, while nobody reads them."""
    async with await Zygote.start(Shape(), user_id=0, program=program("slow")) as zygote:
        number, end, ended = await forked(zygote)
        waiting = asyncio.create_task(forked(zygote))
        await asyncio.sleep(0)
        for _ in range(20_000):
            zygote.watch(number, cpu_seconds=1, wall_seconds=1)
        zygote.end(number)
        assert (await ended).cause is Cause.DEMAND
        end.close()
        (await waiting)[1].close()


async def test_when_none_can_be_forked_why_is_told(program):
    async with await Zygote.start(Shape(), user_id=0, program=program("full")) as zygote:
        with pytest.raises(SandboxUnavailableError, match="could be forked: Resource temporarily"):
            await forked(zygote)
        await zygote.emptied()


async def test_a_fork_that_takes_too_long_is_given_up(program, monkeypatch):
    monkeypatch.setattr(zygotes, "FORK_SECONDS", 0.05)
    async with await Zygote.start(Shape(), user_id=0, program=program("slow")) as zygote:
        with pytest.raises(SandboxUnavailableError, match="in time"):
            await forked(zygote)
        await zygote.emptied()  # what came late had nobody, and is gone
        assert (zygote.cells, zygote.alive) == (0, True)


@pytest.mark.parametrize(
    ("mode", "told"),
    [("broken", "cell: it is broken"), ("babbling", "is gone"), ("mute", "not ready in time")],
)
async def test_one_that_does_not_come_up_says_why(program, monkeypatch, mode, told):
    monkeypatch.setattr(zygotes, "HELLO_SECONDS", 5.0 if mode != "mute" else 0.2)
    with pytest.raises(SandboxUnavailableError, match=told):
        await Zygote.start(Shape(), user_id=0, program=program(mode))


async def test_without_its_program_there_is_none(tmp_path):
    with pytest.raises(UnsupportedError, match="cannot start"):
        await Zygote.start(Shape(), user_id=0, program=tmp_path / "nothing")


async def test_on_another_machine_it_is_refused(program, monkeypatch):
    monkeypatch.setattr(zygotes.platform, "machine", lambda: "riscv64")
    with pytest.raises(UnsupportedError, match="no filter for riscv64"):
        await Zygote.start(Shape(), user_id=0, program=program())


async def test_its_end_is_the_end_of_all_its_cells(zygote):
    number, end, ended = await forked(zygote)
    os.kill(zygote._process.pid, 9)
    assert (await ended).code == 137
    await zygote.emptied()
    assert not zygote.alive
    zygote.end(number)
    with pytest.raises(SandboxUnavailableError, match="is gone"):
        await forked(zygote)
    end.close()


async def test_nothing_of_it_is_left(program):
    zygote = await Zygote.start(Shape(), user_id=0, program=program())
    place, pid = zygote._place, zygote._process.pid
    _, end, ended = await forked(zygote)
    await zygote.close()
    await zygote.close()
    assert (await ended).code == 137
    assert not place.exists()
    assert not Path(f"/proc/{pid}").exists()
    end.close()


def test_a_package_that_is_not_installed_is_told_by_name():
    assert Path(zygotes._packages("bashkit"), "bashkit").is_dir()
    with pytest.raises(UnsupportedError, match="the package nothing_like_it is not installed"):
        zygotes._packages("nothing_like_it")

"""A machine that is held still goes on, whatever happens meanwhile."""

import asyncio

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm.holding import held_still
from stand_in_machines import HOLD, RESUME, START, end, kinds, spec, stand_in_driver

HELD = [HOLD, "stop", "cont", RESUME]


@pytest.fixture
async def driver(tmp_path, monkeypatch):
    found = stand_in_driver(tmp_path, monkeypatch)
    await found.create(spec(1))
    yield found
    await end(found)


@pytest.fixture
def alive(driver):
    return driver._running[spec(1).id]


def commands(tmp_path):
    return [kind for kind in kinds(tmp_path) if kind not in (START, "qmp_capabilities")]


async def test_it_stands_while_the_body_runs(driver, alive, tmp_path):
    async with held_still(alive, driver._moment):
        assert commands(tmp_path) == HELD[:2]
    assert commands(tmp_path) == HELD


async def test_it_goes_on_where_the_body_fails(driver, alive, tmp_path):
    with pytest.raises(ZeroDivisionError):
        async with held_still(alive, driver._moment):
            raise ZeroDivisionError
    assert commands(tmp_path) == HELD


@pytest.mark.parametrize("step", ["stop", "body", "cont"])
async def test_it_goes_on_where_we_are_cancelled(driver, alive, tmp_path, monkeypatch, step):
    run = alive.monitor.run

    async def slow(command, *more):
        if command == step:
            asyncio.current_task()
            reached.set()
            await asyncio.sleep(0.1)
        return await run(command, *more)

    async def hold():
        async with held_still(alive, driver._moment):
            if step == "body":
                reached.set()
                await asyncio.sleep(60)

    reached = asyncio.Event()
    monkeypatch.setattr(alive.monitor, "run", slow)
    task = asyncio.create_task(hold())
    await reached.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert commands(tmp_path) == HELD
    assert alive.channel.reason is None


async def test_one_that_does_not_stand_is_let_go(driver, alive, tmp_path, monkeypatch):
    async def refuse(_order, _seconds):
        raise SandboxUnavailableError("a process did not stand still")

    order = alive.control.order
    monkeypatch.setattr(alive.control, "order", refuse)
    asyncio.get_running_loop().call_later(0, monkeypatch.setattr, alive.control, "order", order)
    with pytest.raises(SandboxUnavailableError, match="did not stand"):
        async with held_still(alive, driver._moment):
            pytest.fail("it did not stand")
    assert commands(tmp_path)[-2:] == HELD[-2:]


async def test_one_that_does_not_go_on_is_ended(driver, alive, monkeypatch):
    async def gone(*_):
        raise SandboxUnavailableError("the machine is gone")

    with pytest.raises(SandboxUnavailableError, match="the machine is gone"):
        async with held_still(alive, driver._moment):
            monkeypatch.setattr(alive.monitor, "run", gone)
    assert "did not go on after its disk was read" in alive.channel.reason


async def test_cancelled_it_stays_cancelled_where_the_machine_does_not_go_on(
    driver, alive, monkeypatch
):
    async def gone(*_):
        raise SandboxUnavailableError("the machine is gone")

    async def hold():
        async with held_still(alive, driver._moment):
            monkeypatch.setattr(alive.monitor, "run", gone)
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await hold()
    assert alive.channel.reason is not None

"""Forks of machines, with a stand-in for each: what is copied and when, and what is left of one that fails."""

import asyncio
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from handiwork.model.errors import ConflictError, NotFoundError, SandboxUnavailableError
from handiwork.sandboxes.microvm import forking
from stand_in_machines import HOLD, RESUME, START, end, kinds, spec, stand_in_driver, states

HELD = [HOLD, "stop", "cont", RESUME]


@pytest.fixture
async def driver(tmp_path, monkeypatch):
    found = stand_in_driver(tmp_path, monkeypatch)
    yield found
    await end(found)
    assert states(tmp_path) == []


def disk(tmp_path, number):
    return tmp_path / "data/microvm/states" / spec(number).id / "disk"


def commands(tmp_path, number=0):
    return [kind for kind in kinds(tmp_path)[number:] if kind not in (START, "qmp_capabilities")]


async def test_one_that_runs_is_held_still_while_its_disk_is_copied(driver, tmp_path, monkeypatch):
    await driver.create(spec(1))
    disk(tmp_path, 1).write_bytes(b"files of it")
    seen = []
    copy = forking.copy_file

    def watched(*arguments):
        seen.extend(commands(tmp_path))
        copy(*arguments)

    monkeypatch.setattr(forking, "copy_file", watched)
    await driver.fork(spec(1).id, spec(2).id)
    assert seen == HELD[:2]
    assert commands(tmp_path) == HELD
    assert disk(tmp_path, 2).read_bytes() == b"files of it"
    assert sorted(path.name for path in disk(tmp_path, 2).parent.iterdir()) == ["disk", "meta.json"]
    assert stat.S_IMODE(disk(tmp_path, 2).stat().st_mode) == 0o600
    assert await driver.leftovers() == [spec(1).id, spec(2).id]
    assert driver._running.keys() == {spec(1).id}


async def test_nothing_is_late_while_it_is_held(driver, tmp_path, monkeypatch):
    await driver.create(spec(1))
    channel = driver._running[spec(1).id].channel
    copy, loop = forking.copy_file, asyncio.get_running_loop()
    loop.call_soon(channel.deadlines.set, 7, 0.2)
    await asyncio.sleep(0)

    def slow(*arguments):
        time.sleep(0.5)
        copy(*arguments)

    monkeypatch.setattr(forking, "copy_file", slow)
    await driver.fork(spec(1).id, spec(2).id)
    assert channel.reason is None
    await asyncio.sleep(0.5)
    assert channel.reason is not None, "the control: its time goes on afterwards"


async def test_of_one_that_sleeps_the_disk_alone_is_taken_and_it_boots(driver, tmp_path):
    await driver.create(spec(1))
    await driver.sleep(spec(1).id)
    assert {"devices", "memory"} <= {path.name for path in disk(tmp_path, 1).parent.iterdir()}
    await driver.fork(spec(1).id, spec(2).id)
    assert sorted(path.name for path in disk(tmp_path, 2).parent.iterdir()) == ["disk", "meta.json"]
    before = len(kinds(tmp_path))
    await driver.restore(spec(2))
    assert kinds(tmp_path)[before:] == [START]
    await driver.restore(spec(1))
    assert "migrate-incoming" in kinds(tmp_path)[before:]


async def test_a_sparse_disk_is_copied_without_its_holes(driver, tmp_path):
    await driver.create(spec(1))
    await driver.sleep(spec(1).id)
    with disk(tmp_path, 1).open("r+b") as file:
        file.truncate(64 << 20)
        file.seek(32 << 20)
        file.write(b"x" * 4096)
    await driver.fork(spec(1).id, spec(2).id)
    assert disk(tmp_path, 2).stat().st_size == 64 << 20
    assert disk(tmp_path, 2).stat().st_blocks * 512 < 1 << 20


@pytest.mark.root
async def test_each_has_a_host_id_of_its_own(tmp_path, monkeypatch):
    driver = stand_in_driver(tmp_path, monkeypatch, first_id=3 << 29)
    try:
        await driver.create(spec(1))
        await driver.fork(spec(1).id, spec(2).id)
        owners = {disk(tmp_path, number).stat().st_uid for number in (1, 2)}
        assert owners == {3 << 29, (3 << 29) + 1}
    finally:
        await end(driver)


async def test_what_cannot_be_forked(driver, tmp_path):
    await driver.create(spec(1))
    for target in (spec(1).id, spec(2).id):
        with pytest.raises(ConflictError if target == spec(1).id else NotFoundError):
            await driver.fork(spec(1).id if target == spec(1).id else spec(3).id, target)
    assert driver.can_fork(spec(1).id)
    assert not driver.can_fork(spec(3).id)
    assert states(tmp_path) == [spec(1).id]


async def test_no_room_leaves_nothing_and_the_source_goes_on(driver, tmp_path, monkeypatch):
    await driver.create(spec(1))

    def full(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(forking, "copy_file", full)
    with pytest.raises(SandboxUnavailableError, match="No space left"):
        await driver.fork(spec(1).id, spec(2).id)
    assert commands(tmp_path) == HELD
    assert states(tmp_path) == [spec(1).id]
    assert driver._running[spec(1).id].channel.reason is None


async def test_who_is_cancelled_leaves_nothing_and_the_source_goes_on(
    driver, tmp_path, monkeypatch
):
    await driver.create(spec(1))
    begun = threading.Event()

    def slow(source, target, stop):
        begun.set()
        stop.wait(20)

    monkeypatch.setattr(forking, "copy_file", slow)
    call = asyncio.create_task(driver.fork(spec(1).id, spec(2).id))
    await asyncio.to_thread(begun.wait, 20)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert commands(tmp_path) == HELD
    assert states(tmp_path) == [spec(1).id]


async def test_a_source_that_does_not_go_on_is_ended_and_keeps_its_disk(
    driver, tmp_path, monkeypatch
):
    await driver.create(spec(1))
    alive = driver._running[spec(1).id]
    run = alive.monitor.run

    async def stays(command, **arguments):
        if command == "cont":
            raise SandboxUnavailableError("it stands still")
        return await run(command, **arguments)

    monkeypatch.setattr(alive.monitor, "run", stays)
    with pytest.raises(SandboxUnavailableError, match="it stands still"):
        await driver.fork(spec(1).id, spec(2).id)
    assert "did not go on" in await alive.channel.closed()
    assert states(tmp_path) == [spec(1).id]
    await driver.restore(spec(1))


async def test_what_a_crash_left_of_a_fork_is_taken_away(driver, tmp_path):
    left = tmp_path / "data/microvm/states/.fork-3"
    left.mkdir()
    Path(left, "disk").write_bytes(b"half")
    again = stand_in_driver(tmp_path, pytest.MonkeyPatch())
    assert await again.leftovers() == []
    assert states(tmp_path) == []


async def test_a_cancelled_sleep_ends_the_machine_and_keeps_its_disk(driver, tmp_path, monkeypatch):
    await driver.create(spec(1))
    alive = driver._running[spec(1).id]
    waits = asyncio.Event()

    async def stuck(_seconds):
        waits.set()
        await asyncio.sleep(60)

    monkeypatch.setattr(alive.exits, "hush", stuck)
    call = asyncio.create_task(driver.sleep(spec(1).id))
    await waits.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert alive.process.exited.done()
    assert driver._running == {}
    assert disk(tmp_path, 1).is_file()

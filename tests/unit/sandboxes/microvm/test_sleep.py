"""Sleep and wake, with a stand-in for each machine: whose its memory is, when it is woken, and when never."""

import stat
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import Limits
from handiwork.sandboxes.microvm import memory
from handiwork.sandboxes.microvm.qmp import Monitor
from stand_in_machines import HOLD, RESUME, START, end, kinds, spec, stand_in_driver, states

OWNER = 3 << 29
FIRST_BYTES = b"what it had in memory"


@pytest.fixture
async def driver(tmp_path, monkeypatch):
    found = stand_in_driver(tmp_path, monkeypatch)
    yield found
    await end(found)
    assert states(tmp_path) == []


def state(tmp_path) -> Path:
    return tmp_path / "data/microvm/states" / spec(1).id


def names(tmp_path):
    return sorted(path.name for path in state(tmp_path).iterdir())


def remember(tmp_path):
    with (state(tmp_path) / "memory").open("r+b") as file:
        file.write(FIRST_BYTES)


def remembered(tmp_path):
    with (state(tmp_path) / "memory").open("rb") as file:
        return file.read(len(FIRST_BYTES))


@pytest.mark.root
async def test_disk_and_memory_are_for_the_machine_alone_and_go_with_it(tmp_path, monkeypatch):
    driver = stand_in_driver(tmp_path, monkeypatch, first_id=OWNER)
    try:
        await driver.create(spec(1))
        await driver.sleep(spec(1).id)
        for name in ("disk", "memory", "devices"):
            found = (state(tmp_path) / name).stat()
            assert stat.S_IMODE(found.st_mode) == 0o600, name
            assert found.st_uid == (0 if name == "devices" else OWNER), name
        assert stat.S_IMODE(state(tmp_path).stat().st_mode) == 0o700
    finally:
        await end(driver)
    assert states(tmp_path) == []


async def test_what_is_destroyed_asleep_or_running_leaves_no_memory(driver, tmp_path):
    for asleep in (True, False):
        await driver.create(spec(1))
        if asleep:
            await driver.sleep(spec(1).id)
        await driver.destroy(spec(1).id)
        assert states(tmp_path) == []


async def test_all_stands_still_before_it_is_saved_and_is_told_the_time_before_it_goes_on(
    driver, tmp_path
):
    await driver.create(spec(1))
    before = len(kinds(tmp_path))
    await driver.sleep(spec(1).id)
    saved = kinds(tmp_path)[before:]
    assert saved.index(HOLD) < saved.index("stop") < saved.index("migrate")
    before = len(kinds(tmp_path))
    await driver.restore(spec(1))
    woken = kinds(tmp_path)[before:]
    # What is held goes on by RESUME, which the agent of the machine obeys after it set clock and randomness.
    assert woken.index("migrate-incoming") < woken.index("cont") < woken.index(RESUME)
    assert START not in woken


async def test_memory_is_given_up_before_the_machine_runs_on(driver, tmp_path, monkeypatch):
    """From then on its disk is newer: a crash must find nothing to wake."""
    await driver.create(spec(1))
    await driver.sleep(spec(1).id)
    there, run = {}, Monitor.run

    async def watched(self, command, descriptor=None, **arguments):
        there[command] = "devices" in names(tmp_path)
        return await run(self, command, descriptor, **arguments)

    monkeypatch.setattr(Monitor, "run", watched)
    await driver.restore(spec(1))
    assert (there["migrate-incoming"], there["cont"]) == (True, False)


async def test_memory_of_a_run_that_crashed_is_not_woken(driver, tmp_path):
    await driver.create(spec(1))
    remember(tmp_path)
    driver._running[spec(1).id].process.kill()
    await driver._running[spec(1).id].process.exited
    before = len(kinds(tmp_path))
    await driver.restore(spec(1))
    assert kinds(tmp_path)[before:] == [START]
    assert remembered(tmp_path) == bytes(len(FIRST_BYTES))


@pytest.mark.parametrize(
    "other",
    [{"limits": Limits(memory_mib=64)}, {"hostname": "other"}, {"exit": None}],
    ids=lambda other: next(iter(other)),
)
async def test_memory_of_another_shape_is_not_woken(driver, tmp_path, other):
    await driver.create(spec(1))
    remember(tmp_path)
    await driver.sleep(spec(1).id)
    before = len(kinds(tmp_path))
    await driver.restore(spec(1, **other))
    assert kinds(tmp_path)[before:] == [START]
    assert "devices" not in names(tmp_path)
    assert remembered(tmp_path) == bytes(len(FIRST_BYTES))


async def test_memory_of_another_boot_of_this_host_is_not_woken(driver, tmp_path, monkeypatch):
    """What was written of it before a power cut nobody knows."""
    await driver.create(spec(1))
    await driver.sleep(spec(1).id)
    monkeypatch.setattr(driver, "_host_boot", "the next one")
    before = len(kinds(tmp_path))
    await driver.restore(spec(1))
    assert kinds(tmp_path)[before:] == [START]


async def test_memory_that_cannot_be_saved_is_given_up_and_the_disk_kept(
    driver, tmp_path, monkeypatch
):
    await driver.create(spec(1))

    async def fails(_monitor, path):
        path.write_bytes(b"half")
        raise SandboxUnavailableError("no room")

    monkeypatch.setattr(memory, "save", fails)
    await driver.sleep(spec(1).id)
    assert names(tmp_path) == ["disk", "memory", "meta.json"]
    before = len(kinds(tmp_path))
    await driver.restore(spec(1))
    assert kinds(tmp_path)[before:] == [START]


async def test_memory_that_cannot_be_read_is_given_up(driver, tmp_path, monkeypatch):
    await driver.create(spec(1))
    await driver.sleep(spec(1).id)

    async def fails(_monitor, _path):
        raise SandboxUnavailableError("it is torn")

    monkeypatch.setattr(memory, "load", fails)
    before = len(kinds(tmp_path))
    await driver.restore(spec(1))
    assert kinds(tmp_path)[before:] == [START]
    assert "devices" not in names(tmp_path)

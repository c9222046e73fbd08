"""The files of machines, with a stand-in for each: read while nothing runs, and made anew in one step."""

import asyncio
import os
import stat
from datetime import timedelta
from pathlib import Path

import pytest

from ext4_disk import contents, make_disk
from handiwork.model.errors import ConflictError, NotFoundError, SandboxUnavailableError
from handiwork.sandboxes.microvm.making import OWNERS
from handiwork.sandboxes.snapshots.manifest import Entry, Kind
from handiwork.sandboxes.snapshots.protocol import KeepsFiles
from stand_in_machines import (
    HOLD,
    NOW,
    RESUME,
    START,
    end,
    kinds,
    spec,
    stand_in_driver,
    states,
)

HELD = [HOLD, "stop", "cont", RESUME]
MIB = 16


@pytest.fixture
async def driver(tmp_path, monkeypatch):
    found = stand_in_driver(tmp_path, monkeypatch)
    await found.create(spec(1))
    (tmp_path / "files/upper").mkdir(parents=True)
    (tmp_path / "files/upper/a").write_bytes(b"of it")
    make_disk(disk(tmp_path), tmp_path / "files")
    yield found
    await end(found)
    assert states(tmp_path) == []


def disk(tmp_path, number=1):
    return tmp_path / "data/microvm/states" / spec(number).id / "disk"


def commands(tmp_path):
    return [kind for kind in kinds(tmp_path) if kind not in (START, "qmp_capabilities")]


def names(tree):
    listing, found = contents(tree, OWNERS)
    return [one.name for one in listing.entries], list(found.values())


async def one_file(place, ids):
    assert ids.later
    os.mkdir("upper", 0o700, dir_fd=place)
    upper = Path(f"/proc/self/fd/{place}/upper")
    (upper / "made").write_bytes(b"anew")
    times = (1_700_000_000_000_000_005,) * 2
    for path in (upper / "made", upper):
        os.utime(path, ns=times)
    return [
        Entry(-1, b"", Kind.DIRECTORY, 0o755, 0, 0, times[0]),
        Entry(0, b"made", Kind.FILE, 0o4711, 5, 6, times[0], size=4),
    ]


def test_it_is_a_driver_that_keeps_files(driver):
    assert isinstance(driver, KeepsFiles)
    origin = driver.origin(spec(1).id)
    assert (origin.image, origin.ids) == ("d", OWNERS)
    assert spec(1).id in origin.tree


async def test_one_that_runs_is_held_still_while_its_disk_is_read(driver, tmp_path):
    async with driver.still(spec(1).id) as tree:
        assert commands(tmp_path) == HELD[:2]
        assert tree.flush()
        assert names(tree) == ([b"", b"a"], [b"of it"])
    assert commands(tmp_path) == HELD


async def test_one_that_sleeps_is_left_asleep(driver, tmp_path):
    await driver.sleep(spec(1).id)
    before = len(kinds(tmp_path))
    async with driver.still(spec(1).id) as tree:
        assert names(tree) == ([b"", b"a"], [b"of it"])
    assert len(kinds(tmp_path)) == before
    assert (disk(tmp_path).parent / "devices").exists()


async def test_one_that_fell_is_read_as_one_that_sleeps(driver, tmp_path):
    driver._running[spec(1).id].channel.end("it fell")
    async with driver.still(spec(1).id) as tree:
        assert names(tree)[0] == [b"", b"a"]
    assert commands(tmp_path) == []
    assert not driver._running


async def test_what_there_is_not_is_not_found(driver):
    with pytest.raises(NotFoundError):
        driver.origin(spec(2).id)
    with pytest.raises(NotFoundError):
        async with driver.still(spec(2).id):
            pytest.fail("there is none")


async def test_after_a_crash_no_file_is_known_by_its_times(driver, tmp_path, monkeypatch):
    """A write that was flushed may be on the disk without its time."""

    def tree():
        return driver.origin(spec(1).id).tree

    whole = tree()
    await driver.sleep(spec(1).id)
    assert tree() == whole
    (disk(tmp_path).parent / "devices").unlink()  # as a crash leaves it
    cut_off = tree()
    assert cut_off != whole
    assert tree() == cut_off
    monkeypatch.setattr(driver, "_clock", lambda: NOW + timedelta(seconds=1))
    await driver.restore(spec(1))
    assert tree() not in (whole, cut_off)
    booted = tree()
    await driver.sleep(spec(1).id)
    await driver.restore(spec(1))
    assert tree() == booted  # it woke with its memory: nothing was lost


async def test_a_new_disk_takes_the_place_of_disk_and_memory(driver, tmp_path, monkeypatch):
    with pytest.raises(ConflictError, match="is running"):
        await driver.remake(spec(1).id, "d", MIB, one_file)
    await driver.sleep(spec(1).id)
    before = driver.origin(spec(1).id).tree
    monkeypatch.setattr(driver, "_clock", lambda: NOW + timedelta(seconds=1))
    await driver.remake(spec(1).id, "d", MIB, one_file)
    assert states(tmp_path) == [spec(1).id]
    assert sorted(one.name for one in disk(tmp_path).parent.iterdir()) == ["disk", "meta.json"]
    assert stat.S_IMODE(disk(tmp_path).stat().st_mode) == 0o600
    assert disk(tmp_path).stat().st_size == MIB << 20
    async with driver.still(spec(1).id) as tree:
        assert names(tree) == ([b"", b"made"], [b"anew"])
    told = len(kinds(tmp_path))
    await driver.restore(spec(1))
    assert kinds(tmp_path)[told:] == [START]  # it boots
    assert driver.origin(spec(1).id).tree != before
    await driver.settle(spec(1).id, MIB)


async def test_one_that_is_not_there_is_made(driver, tmp_path):
    await driver.remake(spec(2).id, "d", MIB, one_file, forked=True)
    assert states(tmp_path) == [spec(1).id, spec(2).id]
    await driver.restore(spec(2))


@pytest.mark.root
async def test_it_has_a_host_id_of_its_own(tmp_path, monkeypatch):
    driver = stand_in_driver(tmp_path, monkeypatch, first_id=3 << 29)
    try:
        await driver.create(spec(1))
        await driver.sleep(spec(1).id)
        await driver.remake(spec(2).id, "d", MIB, one_file)
        await driver.remake(spec(1).id, "d", MIB, one_file)
        owners = {disk(tmp_path, number).stat().st_uid for number in (1, 2)}
        assert len(owners) == 2
        await driver.create(spec(3))
        assert disk(tmp_path, 3).stat().st_uid not in owners
    finally:
        await end(driver)


@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
async def test_what_fails_leaves_what_was_there(driver, tmp_path, error):
    async def fail(place, _ids):
        os.mkdir("upper", dir_fd=place)
        raise error

    await driver.sleep(spec(1).id)
    wanted = SandboxUnavailableError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted):
        await driver.remake(spec(1).id, "d", MIB, fail)
    assert states(tmp_path) == [spec(1).id]
    assert (disk(tmp_path).parent / "devices").exists()
    async with driver.still(spec(1).id) as tree:
        assert names(tree)[0] == [b"", b"a"]


async def test_what_was_being_made_when_we_were_killed_goes_at_the_next_start(
    driver, tmp_path, monkeypatch
):
    await driver.sleep(spec(1).id)
    beside = tmp_path / "data/microvm/states/.made-7"
    (beside / "tree/upper").mkdir(parents=True)
    stand_in_driver(tmp_path, monkeypatch)
    assert states(tmp_path) == [spec(1).id]


async def test_a_reader_keeps_a_wake_waiting(driver, tmp_path):
    """Two would have the disk: one that reads it, one that writes."""
    await driver.sleep(spec(1).id)
    async with driver.still(spec(1).id) as tree:
        waking = asyncio.ensure_future(driver.restore(spec(1)))
        await asyncio.sleep(0.1)
        assert not waking.done()
        assert names(tree)[0] == [b"", b"a"]
    await waking

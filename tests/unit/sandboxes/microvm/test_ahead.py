"""Machines that stand ready, with a stand-in for each: what they are told before a claim, and what by it."""

import asyncio
import struct

import pytest

from handiwork.model.errors import ConfigError, ConflictError, SandboxUnavailableError
from handiwork.model.sandbox import Limits
from handiwork.observe.metrics import Census
from handiwork.sandboxes.microvm.driver import MicrovmDriver
from handiwork.sandboxes.protocol import Wish
from stand_in_machines import (
    CLAIM,
    EXIT,
    NOW,
    START,
    OneImage,
    end,
    kinds,
    spec,
    stand_in_driver,
    states,
    told,
)

ONE = [Wish(image="i", limits=Limits(), sandboxes=1)]


@pytest.fixture
async def driver(tmp_path, monkeypatch):
    found = stand_in_driver(tmp_path, monkeypatch)
    yield found
    await end(found)
    assert states(tmp_path) == []


async def test_a_former_runs_groups_are_taken_away_once_whoever_asks(driver, monkeypatch):
    """A second sweep at once would take away the group of a machine that was made since."""
    removed = []

    async def slowly(*leaves):
        removed.extend(leaves)
        await asyncio.sleep(0.01)

    with monkeypatch.context() as former:
        former.setattr(driver._cgroups, "leaves", lambda: {"pool-0", "pool-1"})
        former.setattr(driver._cgroups, "remove", slowly)
        await asyncio.gather(driver._sweep(), driver._sweep())
    assert sorted(removed) == ["pool-0", "pool-1"]


async def test_before_a_claim_a_machine_is_told_of_nobody(driver, tmp_path):
    await driver.prepare(ONE)
    ((kind, payload),) = told(tmp_path)
    assert kind == START
    assert b"--await-claim" in payload
    assert b"ROOTS\n" in payload
    for own in (b"--exit", b"own.sock", b"ITS OWN CA", b"box1", b"sbx_"):
        assert own not in payload, own
    assert states(tmp_path) == [".pool-0"]
    assert await driver.leftovers() == []


async def test_a_claim_brings_all_that_is_its_own(driver, tmp_path):
    await driver.prepare(ONE)
    box = await driver.create(spec(1, hostname="box1", env={"A": "b"}))
    (_, first), (kind, payload) = told(tmp_path)
    assert kind == CLAIM
    entropy = payload[12:76]
    assert struct.unpack("<QI", payload[:12]) == (int(NOW.timestamp() * 1e9), 64)
    assert entropy not in first  # drawn anew
    assert payload[76:] == b"\4\0\0\0box1" + b"\x0b\0\0\0ITS OWN CA\n"
    assert driver._running[box.id].exits._path == EXIT.socket_path
    assert states(tmp_path) == [box.id]
    assert await driver.leftovers() == [box.id]


async def test_one_that_was_claimed_sleeps_and_wakes_as_one_that_was_made(driver, tmp_path):
    made = spec(1)
    await driver.create(made)
    await driver.prepare(ONE)
    claimed = spec(2)
    await driver.create(claimed)
    shapes = {driver._states.load(one.id).sleeps_as for one in (made, claimed)}
    assert len(shapes) == 1
    assert shapes != {""}
    await driver.sleep(claimed.id)
    before = len(kinds(tmp_path))
    await driver.restore(claimed)
    assert "migrate-incoming" in kinds(tmp_path)[before:]
    assert START not in kinds(tmp_path)[before:]


@pytest.mark.parametrize(
    "other", [{"limits": Limits(pids=99)}, {"exit": None}], ids=["limits", "no way out"]
)
async def test_one_of_another_kind_is_not_given(driver, tmp_path, other):
    await driver.prepare(ONE)
    box = await driver.create(spec(1, **other))
    assert states(tmp_path) == [".pool-0", box.id]
    assert [kind for kind, _ in told(tmp_path)] == [START, START]


async def test_an_id_is_used_once(driver, tmp_path):
    await driver.prepare(ONE)
    await driver.create(spec(1))
    await driver.prepare(ONE)
    with pytest.raises(ConflictError):
        await driver.create(spec(1))
    assert states(tmp_path) == ["sbx_standin01"]
    assert "sbx_standin01" in driver._running


async def test_one_that_fell_is_replaced_and_not_given(driver, tmp_path):
    await driver.prepare(ONE)
    (entry,) = driver._pool._ready["d", Limits()]
    entry.machine.process.kill()
    await entry.machine.process.exited
    await driver.create(spec(1))
    assert [kind for kind, _ in told(tmp_path)] == [START, START]
    await driver.prepare(ONE)
    assert states(tmp_path) == [".pool-1", "sbx_standin01"]


async def test_one_that_falls_by_its_claim_leaves_nothing(driver, tmp_path):
    await driver.prepare(ONE)
    (entry,) = driver._pool._ready["d", Limits()]
    entry.machine.control.close()
    with pytest.raises(SandboxUnavailableError, match="takes no order"):
        await driver.create(spec(1))
    assert states(tmp_path) == []
    assert driver._running == {}


async def test_a_name_that_is_too_long_is_refused(driver, tmp_path):
    await driver.prepare(ONE)
    with pytest.raises(ConfigError, match="64 bytes at most"):
        await driver.create(spec(1, hostname="x" * 65))
    assert states(tmp_path) == []


async def test_what_is_not_wanted_any_more_is_ended(driver, tmp_path):
    await driver.prepare([Wish(image="i", limits=Limits(), sandboxes=2)])
    machines = [entry.machine for entry in driver._pool._ready["d", Limits()]]
    assert states(tmp_path) == [".pool-0", ".pool-1"]
    await driver.prepare(())
    assert states(tmp_path) == []
    assert all(machine.process.exited.done() for machine in machines)


async def test_the_next_start_takes_away_what_stood_ready(driver, tmp_path):
    left = tmp_path / "data/microvm/states/.pool-7"
    left.mkdir()
    (left / "disk").write_bytes(b"x")
    MicrovmDriver(
        tmp_path / "data", tmp_path / "agent", OneImage(None), driver._setup, clock=lambda: NOW
    )
    assert states(tmp_path) == []


async def test_it_is_counted(driver):
    await driver.prepare(ONE)
    assert 'pool_sandboxes{tier="microvm"} 1.0' in text(driver)
    await driver.create(spec(1))
    await driver.create(spec(2))
    assert 'pool_sandboxes{tier="microvm"} 0.0' in text(driver)
    for outcome in ("ready", "missed"):
        assert f'pool_wanted_total{{outcome="{outcome}",tier="microvm"}} 1.0' in text(driver)


def text(driver):
    return driver._metrics.text(Census(), NOW).decode()

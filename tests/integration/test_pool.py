"""Sandboxes that stand ready: whose they become, what they are then, and what is left of them."""

import asyncio
import os
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

import control_plane_process
import residue
from handiwork.model.errors import ConflictError
from handiwork.model.sandbox import ExecRequest, Limits, SandboxExit, SandboxSpec
from handiwork.observe.metrics import Census, Metrics
from handiwork.sandboxes.cgroups import CLAIMED
from handiwork.sandboxes.gvisor.driver import Gvisor, find_runsc
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.protocol import Wish

CHILD = Path(__file__).parents[1] / "pool_child.py"
TWO = "[sandbox.pool]\nready = 2\n" + control_plane_process.BRAINLESS
ONE = [Wish(image="host", limits=Limits(), sandboxes=1)]
NAME = f"sbx_pooled{os.getpid():08}"
FACTS = """
hostname; echo $$; tail -n 1 /etc/ssl/certs/ca-certificates.crt; grep -c BEGIN /etc/ssl/certs/ca-certificates.crt
python3 -c 'import socket; print(socket.create_connection(("192.0.2.7", 80), 20).recv(9).decode())'
"""


def open_driver(path, tier="namespace", metrics=None):
    inside = Gvisor(find_runsc("")) if tier == "gvisor" else None
    return NamespaceDriver(
        path / "data", clock=lambda: datetime.now(UTC), inside=inside, metrics=metrics
    )


@pytest.fixture
async def driver_of(tmp_path):
    drivers = []

    def make(*tier, metrics=None):
        drivers.append(open_driver(tmp_path, *tier, metrics=metrics))
        return drivers[-1]

    yield make
    for driver in drivers:
        await driver.prepare(())
        for sandbox_id in await driver.leftovers():
            await driver.destroy(sandbox_id)


def counted(metrics):
    text = metrics.text(Census(), datetime.now(UTC)).decode()
    found = re.findall(
        r'^handiwork_pool_(\w+)\{.*?(?:outcome="(\w+)")?,?tier.*\} (\S+)$', text, re.M
    )
    return {f"{name} {outcome}".strip(): float(value) for name, outcome, value in found}


async def shell(box, script):
    ended = await box.exec(ExecRequest(argv=("sh", "-c", script), cwd="/"))
    return ended.stdout.decode().splitlines() or [ended.stderr.decode()]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("tier", ["namespace", "gvisor"])
async def test_a_claimed_one_is_as_one_that_is_made(driver_of, way_out, tmp_path, tier):
    metrics = Metrics()
    driver = driver_of(tier, metrics=metrics)
    specs = [
        SandboxSpec(id=f"{NAME}{number}", exit=way_out, hostname=f"box{number}")
        for number in (1, 2)
    ]
    made = await driver.create(specs[0])
    await driver.prepare(ONE)
    states = tmp_path / "data/sandboxes"
    assert len(list(states.glob(".pool-*"))) == 1
    assert await driver.leftovers() == [specs[0].id]
    claimed = await driver.create(specs[1])
    assert not list(states.glob(".pool-*"))
    first, second = await shell(made, FACTS), await shell(claimed, FACTS)
    assert second == ["box2", *first[1:]]  # also: its first command is its first process
    assert (second[2], second[4], int(second[3]) > 10) == ("ITS OWN CA", "its own", True)
    await claimed.files.write("/workspace/kept", b"kept")
    await driver.sleep(claimed.id)
    woken = await driver.restore(specs[1])
    assert await woken.files.read("/workspace/kept") == b"kept"
    assert counted(metrics)["wanted_total ready"] == counted(metrics)["wanted_total missed"] == 1
    for spec in specs:
        await driver.destroy(spec.id)
    await driver.prepare(())
    assert residue.count(tmp_path / "data") == residue.Residue()
    assert list(states.iterdir()) == []


async def test_one_of_another_kind_is_not_given(driver_of, way_out, tmp_path):
    driver = driver_of()
    await driver.prepare(ONE)
    other = SandboxSpec(id=f"{NAME}1", exit=way_out, limits=Limits(pids=99))
    closed = SandboxSpec(id=f"{NAME}2")
    for spec in (other, closed):
        await driver.create(spec)
    assert len(list((tmp_path / "data/sandboxes").glob(".pool-*"))) == 1


async def test_an_id_is_used_once(driver_of, way_out, tmp_path):
    driver = driver_of()
    await driver.prepare(ONE)
    spec = SandboxSpec(id=NAME, exit=way_out)
    box = await driver.create(spec)
    await driver.prepare(ONE)
    with pytest.raises(ConflictError):
        await driver.create(spec)
    assert await shell(box, "echo lives") == ["lives"]


async def test_one_that_fell_is_replaced(driver_of, way_out, tmp_path):
    driver = driver_of()
    await driver.prepare(ONE)
    launcher = next(iter(driver._pool._ready.values()))[0].launched.process
    launcher.kill()
    await asyncio.wait_for(asyncio.shield(launcher.exited), 20)
    box = await driver.create(SandboxSpec(id=NAME, exit=way_out))
    assert await shell(box, "echo lives") == ["lives"]
    await driver.prepare(ONE)
    assert len(list((tmp_path / "data/sandboxes").glob(".pool-*"))) == 1


async def test_a_claim_that_fails_leaves_nothing(driver_of, tmp_path):
    driver = driver_of()
    await driver.prepare(ONE)
    gone = SandboxExit(socket_path=str(tmp_path / "gone"), ca_certificate="CA\n")
    with pytest.raises(Exception, match="could not be claimed"):
        await driver.create(SandboxSpec(id=NAME, exit=gone))
    await driver.prepare(())
    assert residue.count(tmp_path / "data") == residue.Residue()
    assert list((tmp_path / "data/sandboxes").iterdir()) == []


@pytest.mark.parametrize("tier", ["namespace", "gvisor"])
@pytest.mark.timeout(180)
async def test_drained_it_leaves_nothing(driver_of, tmp_path, tier):
    driver = driver_of(tier)
    await driver.prepare([Wish(image="host", limits=Limits(), sandboxes=3)])
    assert len(residue.count(tmp_path / "data").processes) >= 6  # the control
    await driver.prepare(())
    assert residue.count(tmp_path / "data") == residue.Residue()
    assert list((tmp_path / "data/sandboxes").iterdir()) == []


@pytest.mark.root
async def test_one_that_is_made_anew_is_in_groups_that_waited_for_it(driver_of, tmp_path):
    driver = driver_of()
    await driver.prepare([msgspec.structs.replace(ONE[0], sandboxes=0)])
    await driver.create(SandboxSpec(id=NAME))
    leaf = driver._running[NAME].launched.leaf
    found = [parent / leaf for parent, _, names in driver._cgroups.parents if "memory" in names]
    assert leaf.startswith("pool-group-")
    assert len(found) == ("memory" in driver._cgroups.limits)
    for group in found:
        assert (group / "cgroup.procs").read_text().split()
        (limit,) = (one for one in group.glob("memory.*") if one.name in CLAIMED)
        assert int(limit.read_text()) == Limits().memory_mib << 20
    await driver.destroy(NAME)
    assert not any(group.exists() for group in found)
    await driver.prepare(())
    assert residue.count(tmp_path / "data") == residue.Residue()


@pytest.mark.root
@pytest.mark.timeout(120)
@pytest.mark.parametrize("wanted", [1, 0])
async def test_after_a_kill_the_next_start_takes_away_what_was_ready(tmp_path, wanted):
    """Also one that keeps none ready."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CHILD), str(tmp_path), NAME), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert await child.stdout.readline() == b"ready\n"
        before = residue.count(tmp_path)
        assert len(before.processes) >= 8  # three that wait and one that was claimed
    finally:
        child.kill()
        await child.wait()
    for _ in range(300):
        left = residue.count(tmp_path, before)
        if left.without("groups") == residue.Residue():
            break
        await asyncio.sleep(0.1)
    assert left.without("groups") == residue.Residue()
    assert left.groups == before.groups != frozenset()
    heir = NamespaceDriver(tmp_path, clock=lambda: datetime.now(UTC))
    assert [one.name for one in (tmp_path / "sandboxes").iterdir()] == [NAME]
    await heir.prepare([msgspec.structs.replace(ONE[0], sandboxes=wanted)])
    await heir.prepare(())
    box = await heir.restore(SandboxSpec(id=NAME))
    assert await box.files.read("/workspace/kept") == b"kept"
    await heir.destroy(NAME)
    assert residue.count(tmp_path, before) == residue.Residue()
    assert list((tmp_path / "sandboxes").iterdir()) == []


def ready(data):
    return sorted(one.name for one in data.glob("sandboxes/sandboxes/.pool-*"))


@pytest.mark.timeout(180)
def test_a_control_plane_keeps_some_ready_and_ends_them_when_it_stops(tmp_path):
    with control_plane_process.running(tmp_path / "host", config=TWO, seconds=120) as plane:
        limit = time.monotonic() + 60
        while len(ready(plane.data)) < 2:
            assert time.monotonic() < limit, "none was made ready"
            time.sleep(0.05)
        assert plane.stop() == 0
    assert ready(plane.data) == []
    left = residue.count(plane.data, driver_dir=plane.data / "sandboxes")
    assert left.without("files") == residue.Residue()

"""Machines that stand ready: whose they become, what they are then, and what is left of them."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

import residue
from handiwork.model.sandbox import ExecRequest, Limits
from handiwork.sandboxes.cgroups import Cgroups
from handiwork.sandboxes.protocol import Wish
from microvm_world import LIMITS, make_driver, needs_kernel, spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), needs_kernel]
CHILD = Path(__file__).parents[1] / "microvm_pool_child.py"
TWO = [Wish(image="any", limits=LIMITS, sandboxes=2)]
FACTS = """
hostname; echo $$; tail -n 1 /etc/ssl/certs/ca-certificates.crt; grep -c BEGIN /etc/ssl/certs/ca-certificates.crt
python3 -c 'import socket; print(socket.create_connection(("192.0.2.7", 80), 60).recv(9).decode())'
cat /proc/self/status | grep -e Cap -e NoNewPrivs -e Seccomp:
"""
OWN = "head -c 16 /dev/urandom | sha256sum; cat /proc/sys/kernel/random/boot_id"
COUNTS = "(i=0; while :; do i=$((i+1)); echo $i >/var/tmp/n; sleep 0.05; done) >/dev/null 2>&1 &"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("microvm")


@pytest.fixture
async def driver(directory):
    found = make_driver(directory)
    yield found
    await found.prepare(())
    for sandbox_id in await found.leftovers():
        await found.destroy(sandbox_id)
    assert list((directory / "data/microvm/states").iterdir()) == []
    assert left(directory) == residue.Residue()


def left(directory):
    return residue.count(directory / "data", driver_dir=directory / "data/microvm")


async def shell(box, script):
    request = ExecRequest(argv=("sh", "-c", script), cwd="/", timeout_seconds=120)
    ended = await box.exec(request)
    return ended.stdout.decode().splitlines() or [ended.stderr.decode()]


async def test_a_claimed_one_is_as_one_that_is_made_and_each_is_new(driver, directory, way_out):
    specs = [
        spec(f"sbx_poolaaa{number}", exit=way_out, hostname=f"box{number}") for number in (1, 2, 3)
    ]
    made = await driver.create(specs[0])
    await driver.prepare(TWO)
    assert len(list((directory / "data/microvm/states").glob(".pool-*"))) == 2
    assert await driver.leftovers() == [specs[0].id]
    claimed = [await driver.create(one) for one in specs[1:]]
    assert not list((directory / "data/microvm/states").glob(".pool-*"))
    first, second = await shell(made, FACTS), await shell(claimed[0], FACTS)
    assert second == ["box2", *first[1:]]  # also: its first command is its first process
    assert (second[2], second[4], int(second[3]) > 10) == ("ITS OWN CA", "its own", True)
    for box in claimed:
        asked = time.time()
        assert asked - 3 < int((await shell(box, "date +%s"))[0]) < time.time() + 3
    told = [await shell(box, OWN) for box in (made, *claimed)]
    for fact in zip(*told, strict=True):
        assert len(set(fact)) == 3, fact


async def test_one_that_was_claimed_lives_on_over_sleep(driver, way_out):
    asked = spec("sbx_poolbbb1", exit=way_out)
    await driver.prepare([Wish(image="any", limits=LIMITS, sandboxes=1)])
    box = await driver.create(asked)
    await box.files.write("/workspace/kept", b"kept")
    await box.files.write("/etc/machine-id", b"of its image\n")
    await shell(box, COUNTS + " while ! test -s /var/tmp/n; do sleep 0.05; done")
    await driver.sleep(asked.id)
    woken = await driver.restore(asked)
    assert await woken.files.read("/workspace/kept") == b"kept"
    assert await woken.files.read("/etc/machine-id") != b"of its image\n"
    before = int((await shell(woken, "cat /var/tmp/n"))[0])
    await asyncio.sleep(1)
    assert int((await shell(woken, "cat /var/tmp/n"))[0]) > before


@pytest.mark.root
async def test_after_a_kill_the_next_start_takes_away_what_stood_ready(directory):
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CHILD), str(directory)), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert await child.stdout.readline() == b"ready\n"
        before = left(directory)
        assert len(before.processes) >= 4  # one that waits and one that was claimed
        await asyncio.sleep(5)  # what was written before is on its disk
    finally:
        child.kill()
        await child.wait()
    states = directory / "data/microvm/states"
    assert [one.name for one in states.glob(".pool-*")] == [".pool-1"]
    for _ in range(300):
        after = residue.count(directory / "data", before, driver_dir=directory / "data/microvm")
        if after.without("groups") == residue.Residue():
            break
        await asyncio.sleep(0.1)
    assert after.without("groups") == residue.Residue()
    heir = make_driver(directory)
    assert [one.name for one in states.iterdir()] == ["sbx_poolccc1"]
    assert Cgroups(residue.group_name(directory / "data/microvm")).make("sbx_poolgone", Limits())
    await heir.prepare(())
    woken = await heir.restore(spec("sbx_poolccc1"))
    assert await woken.files.read("/workspace/kept") == b"kept"
    await heir.destroy("sbx_poolccc1")
    assert left(directory) == residue.Residue()

"""The tables of attacks, each entry with its control, on every tier and for an ordinary user."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from attacks import kernel, mounts, processes, sockets
from attacks.table import Attack, call
from handiwork.sandboxes import namespace

TESTS = Path(__file__).parents[2]
TABLES = {
    "mounts": mounts.ALL,
    "kernel": kernel.ALL,
    "sockets": sockets.ALL,
    "processes": processes.ALL,
}
CASES = [
    pytest.param(one, id=f"{name}: {one.name}") for name, all_ in TABLES.items() for one in all_
]


@pytest.mark.root
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("attack", CASES)
async def test_it_is_refused(world, attack):
    await world.withstands(attack)


@pytest.fixture
def open_dir():
    """A directory that another user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="handiwork-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.timeout(180)
def test_all_are_refused_in_a_sandbox_of_an_ordinary_user(open_dir):
    (open_dir / "data").mkdir(mode=0o700)
    agent = shutil.copy(namespace.DEFAULT_AGENT, open_dir)
    if os.geteuid() == 0:
        os.chown(open_dir / "data", 65534, 65534)
    script = [sys.executable, str(TESTS / "rootless_attacks.py"), str(open_dir / "data"), agent]
    done = subprocess.run(script, capture_output=True, timeout=170, cwd="/", text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said.pop("uid") != 0
    attacks = [one for table in TABLES.values() for one in table]
    assert {
        one.name: said.get(one.name) for one in attacks if said.get(one.name) not in one.inside
    } == {}


def test_there_are_enough_of_them_and_each_has_its_name():
    names = [one.name for table in TABLES.values() for one in table]
    assert len(names) > 100
    assert len(set(names)) == len(names)


def test_an_attack_that_could_not_fail_is_no_attack():
    with pytest.raises(AssertionError):
        Attack("harmless", "print('done')", inside=frozenset({"done"}))


@pytest.mark.root
@pytest.mark.asyncio(loop_scope="module")
async def test_an_attack_that_goes_through_is_seen(world):
    """The sabotage: a thing that the guest may do is taken for an attack, and a control that fails."""
    if world.tier.shares_kernel:  # else whatever it may do to its own
        with pytest.raises(AssertionError, match="allowed: done"):
            await world.withstands(call("allowed", "opened('/dev/null', os.O_WRONLY)"))
    with pytest.raises(AssertionError, match="control"):
        await world.withstands(call("never", "word(1)"))

"""Forks on this host: what they have, that they are apart, and what a kill at any moment leaves."""

import asyncio
import itertools
import os
import random
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from fork_child import CONTENT, made_of
from handiwork.model.errors import NotFoundError
from handiwork.model.sandbox import ExecRequest, Limits, SandboxSpec
from handiwork.sandboxes import disks
from handiwork.sandboxes.gvisor.driver import Gvisor, find_runsc
from handiwork.sandboxes.layers import DEPTH
from handiwork.sandboxes.marks import UNFLUSHED
from handiwork.sandboxes.namespace import NamespaceDriver

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.geteuid() == 0 and not disks.can_limit_disks(),
        reason="needs loop devices, mkfs.ext4 and Linux 6.15",
    ),
]
LIMITS = Limits(disk_mib=256)
CHILD = Path(__file__).parents[1] / "fork_child.py"
WRITE = """
cd /workspace; echo kept > a; chown 7:8 a; chmod 640 a; ln a b; ln -s a c; mkfifo f
mkdir -p deep/er; echo d > deep/er/d; truncate -s 50M holes; echo x > x; cp /bin/true cap
rm -rf /srv /opt; rm /etc/services; mkdir /etc/services; echo i > /etc/services/i
echo changed > /etc/inputrc; chmod 711 /
"""
PYTHON = """
import os
os.setxattr('/workspace/a', 'user.note', b'noted')
os.setxattr('/workspace/cap', 'security.capability', bytes.fromhex('0100000200040000000000000000000000000000'))
"""
TELL = """
cd /workspace; stat -c '%n %u:%g %a %h %F %s' a b c f holes deep/er/d / cap; cat a deep/er/d /etc/inputrc
ls -d /srv /opt /etc/services/* 2>&1; python3 -c "
import os; print(os.getxattr('/workspace/a', 'user.note'), os.getxattr('/workspace/cap', 'security.capability'))"
[ a -ef b ] && echo same; stat -c %b holes
"""


def specs(count: int) -> list[SandboxSpec]:
    return [SandboxSpec(id=f"sbx_fork{n}{os.getpid():08}", limits=LIMITS) for n in range(count)]


def open_driver(data_dir: Path, **options) -> NamespaceDriver:
    return NamespaceDriver(data_dir, clock=lambda: datetime.now(UTC), **options)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
async def driver(data_dir):
    found = open_driver(data_dir)
    yield found
    for sandbox_id in await found.leftovers():
        await found.destroy(sandbox_id)
    assert not list((data_dir / "sandboxes").iterdir())
    assert not (data_dir / "layers").exists() or not list((data_dir / "layers").iterdir())
    assert await until(lambda: not devices_of(data_dir))


def devices_of(directory: Path) -> list[str]:
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            text = backing.read_text().strip()
        except OSError:
            continue
        if text.startswith((f"{directory}/sandboxes", f"{directory}/layers")):
            found.append(text)
    return found


async def until(condition, seconds=20.0):
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        await asyncio.sleep(0.02)
    return True


async def sh(box, script: str, **fields) -> str:
    result = await box.exec(ExecRequest(argv=("sh", "-c", script), cwd="/", **fields))
    assert result.exit_code == 0, result
    return result.stdout.decode().strip()


async def written(driver, spec):
    """Make a sandbox whose files are of every kind; return it and what it tells of them."""
    box = await driver.create(spec)
    await sh(box, WRITE)
    made = await box.exec(ExecRequest(argv=("python3", "-c", PYTHON), cwd="/"))
    assert made.exit_code == 0, made
    return box, await sh(box, TELL)


async def test_a_fork_of_one_that_runs_is_used_before_its_disk_is_written_out(
    driver, data_dir, monkeypatch
):
    """Until then nothing it writes waits for the disk; from then on it does, and it counts as whole."""
    monkeypatch.setattr("handiwork.sandboxes.namespace.FIRST_START_SECONDS", 3600.0)
    one, two = specs(2)
    _, told = await written(driver, one)
    await driver.fork(one.id, two.id)
    fork = await driver.restore(two)
    mark = data_dir / "sandboxes" / two.id / UNFLUSHED
    assert (mark.exists(), has_barriers(driver, two.id)) == (True, False)
    assert await sh(fork, TELL) == told
    driver._unflushed.flush_later(two.id)
    assert await until(lambda: not mark.exists())
    assert has_barriers(driver, two.id)
    await sh(fork, "echo more > /workspace/more")
    await driver.sleep(two.id)
    again = await driver.restore(two)
    assert has_barriers(driver, two.id)
    assert await sh(again, "cat /workspace/more") == "more"


def has_barriers(driver, sandbox_id) -> bool:
    (device, *_) = driver._running[sandbox_id].stack.devices()
    options = Path(f"/proc/fs/ext4/loop{device.partition(':')[2]}/options").read_text()
    return "nobarrier" not in options.split()


@pytest.mark.parametrize("asleep", [False, True], ids=["running", "sleeping"])
async def test_a_fork_has_all_files_and_each_is_alone_with_its_changes(driver, asleep):
    one, two = specs(2)
    box, told = await written(driver, one)
    assert "7:8 640 2" in told
    if asleep:
        await driver.sleep(one.id)
    await driver.fork(one.id, two.id)
    if asleep:
        box = await driver.restore(one)
    twin = await driver.restore(two)
    assert await sh(twin, TELL) == await sh(box, TELL) == told
    assert await sh(twin, "cat /proc/self/uid_map") != await sh(box, "cat /proc/self/uid_map")
    await sh(twin, "cd /workspace; rm -r deep x; echo twin > a; rm /etc/inputrc; chown 9 f")
    assert await sh(box, TELL) == told
    await sh(box, "cd /workspace; echo box > deep/er/d; rm c; mkdir new")
    assert await sh(twin, "cd /workspace; cat a; ls -d deep x c new 2>/dev/null || :") == "twin\nc"
    assert await sh(twin, "cat /workspace/a", user="root") == "twin"
    refused = await twin.exec(ExecRequest(argv=("cat", "/workspace/a"), cwd="/", user="nobody"))
    assert b"Permission denied" in refused.stderr


@pytest.mark.parametrize("asleep", [False, True], ids=["running", "sleeping"])
async def test_a_fork_outlives_its_source_and_the_other_way_round(driver, data_dir, asleep):
    one, two, three = specs(3)
    _, told = await written(driver, one)
    if asleep:
        await driver.sleep(one.id)
    await driver.fork(one.id, two.id)
    await driver.destroy(one.id)
    await driver.fork(two.id, three.id)
    await driver.destroy(two.id)
    assert await sh(await driver.restore(three), TELL) == told


async def test_forks_of_forks_to_the_cap_and_beyond(driver, data_dir):
    chain = specs(DEPTH + 4)
    await written(driver, chain[0])
    for number, (source, target) in enumerate(itertools.pairwise(chain)):
        await driver.sleep(source.id)
        await driver.fork(source.id, target.id)
        assert len(driver._states.load(target.id, "").layers) <= DEPTH
        twin = await driver.restore(target)
        await sh(twin, f"cd /workspace; rm -f x{number - 1}; echo {number} > x{number}")
        await sh(twin, f"echo {number} >> /workspace/a")
    told = await sh(twin, "cd /workspace; cat a; ls -d x?*")
    last = len(chain) - 2
    assert told.split() == ["kept", *map(str, range(last + 1)), f"x{last}"]
    for spec in chain[:-1]:
        await driver.destroy(spec.id)
    assert await sh(twin, "cat /workspace/deep/er/d") == "d"
    await driver.sleep(chain[-1].id)
    assert await sh(await driver.restore(chain[-1]), "cat /workspace/deep/er/d") == "d"


async def test_a_forks_disk_is_as_large_as_its_source_had_room(driver):
    one, two = specs(2)
    box = await driver.create(one)
    await sh(box, "head -c 100M /dev/urandom > /workspace/much")
    await driver.sleep(one.id)
    await driver.fork(one.id, two.id)
    for spec in (one, two):
        twin = await driver.restore(spec)
        await sh(twin, "head -c 100M /dev/zero > /workspace/fits")  # the control
        full = ExecRequest(argv=("sh", "-c", "head -c 60M /dev/zero > /workspace/full"), cwd="/")
        assert b"No space left" in (await twin.exec(full)).stderr


async def test_layers_are_made_one_when_that_is_worth_it(driver, data_dir):
    one, two, three = specs(3)
    _, told = await written(driver, one)
    await driver.sleep(one.id)
    await driver.fork(one.id, two.id)
    await driver.settle(two.id, LIMITS.disk_mib)
    assert driver._states.load(two.id, "").layers  # it is shared: nothing is won
    twin = await driver.restore(two)
    await sh(twin, "echo two > /workspace/x; rm /workspace/f")
    await driver.sleep(two.id)
    await driver.fork(two.id, three.id)
    for spec in (two, three):
        assert len(driver._states.load(spec.id, "").layers) == 2
        await driver.settle(spec.id, LIMITS.disk_mib)
        # What nobody else shares any more is renamed back, over the layer that is shared still.
        assert len(driver._states.load(spec.id, "").layers) == (spec is three)
        twin = await driver.restore(spec)
        assert await sh(twin, "cat /workspace/x; ls /workspace | grep -c ^f$ || :") in (
            "two\n0",
            "x",
        )
        assert await sh(twin, "mkfifo /workspace/f; echo x > /workspace/x; " + TELL) == told
    await driver.destroy(three.id)
    await driver.settle(one.id, LIMITS.disk_mib)
    assert driver._states.load(one.id, "").layers == ()
    assert not list((data_dir / "layers").iterdir())
    assert await sh(await driver.restore(one), TELL) == told


async def test_one_that_writes_all_the_time_is_forked_at_one_moment(driver):
    """Each number is written to two files in turn: they differ by one at most, whenever that was."""
    one, two = specs(2)
    box = await driver.create(one)
    loop = "i=0; while :; do i=$((i+1)); echo $i > /workspace/p.new; mv /workspace/p.new /workspace/p; "
    loop += "echo $i > /workspace/q.new; mv /workspace/q.new /workspace/q; done"
    await sh(box, f"({loop}) >/dev/null 2>&1 &")
    await asyncio.sleep(0.3)
    await driver.fork(one.id, two.id)
    before = int(await sh(box, "cat /workspace/p"))
    first, second = (await sh(await driver.restore(two), "cat /workspace/p /workspace/q")).split()
    assert 0 <= int(first) - int(second) <= 1
    assert int(await sh(box, "sleep 0.2; cat /workspace/p")) > before >= int(first)


@pytest.mark.parametrize("tier", ["gvisor"])
async def test_in_gvisor_too(tmp_path, tier):
    runsc = find_runsc("")
    assert runsc is not None, "no runsc: ./run test installs it"
    driver = open_driver(tmp_path, inside=Gvisor(runsc))
    one, two, three = specs(3)
    try:
        box = await driver.create(one)
        await sh(box, "cd /workspace; echo kept > a; chown 7:8 a; ln a b; rm /etc/services")
        tell = "cd /workspace; stat -c '%u:%g %h' a; cat a b; ls /etc/services 2>/dev/null || :"
        told = await sh(box, tell)
        await driver.fork(one.id, two.id)
        assert await sh(await driver.restore(two), tell) == told
        await driver.sleep(one.id)
        await driver.fork(one.id, three.id)
        twin = await driver.restore(three)
        assert await sh(twin, tell) == told
        await sh(twin, "rm /workspace/a; echo three > /workspace/b")
        assert await sh(await driver.restore(one), tell) == told
    finally:
        for sandbox_id in await driver.leftovers():
            await driver.destroy(sandbox_id)
    assert not list((tmp_path / "layers").iterdir())


async def test_killed_at_any_moment_every_fork_is_whole_and_no_layer_is_left(tmp_path):
    chance = random.Random(5)
    for turn in range(6):
        child = await asyncio.create_subprocess_exec(
            sys.executable, str(CHILD), str(tmp_path), str(turn), stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
        await asyncio.sleep(chance.random() * 0.6)
        child.send_signal(signal.SIGKILL)
        await child.wait()
        driver = open_driver(tmp_path)  # lets go on, and so end, who was frozen at that moment
        assert await until(lambda: not devices_of(tmp_path)), "a device is left"
        found = await driver.leftovers()
        assert any(made_of(one) == turn for one in found)
        for sandbox_id in found:
            twin = await driver.restore(SandboxSpec(id=sandbox_id, limits=LIMITS))
            assert await sh(twin, "sha256sum /workspace/much; cat /workspace/mark") == (
                f"{CONTENT}  /workspace/much\nkept"
            )
            await driver.destroy(sandbox_id)
        assert not list((tmp_path / "sandboxes").iterdir())
        assert not list((tmp_path / "layers").iterdir())


async def test_a_fork_has_a_machine_id_of_its_own_from_its_first_start_on(driver):
    one, two = specs(2)
    box = await driver.create(one)
    await sh(box, "echo 0123 > /etc/machine-id")
    await driver.fork(one.id, two.id)
    twin = await driver.restore(two)
    name = await sh(twin, "cat /etc/machine-id")
    assert len(name) == 32
    await driver.sleep(two.id)
    assert await sh(await driver.restore(two), "cat /etc/machine-id") == name
    assert await sh(box, "cat /etc/machine-id") == "0123"


async def test_the_source_of_a_fork_must_be_there(driver):
    one, two = specs(2)
    with pytest.raises(NotFoundError):
        await driver.fork(one.id, two.id)
    assert await driver.leftovers() == []

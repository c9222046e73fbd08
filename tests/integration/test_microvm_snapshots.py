"""Snapshots of machines: what is in one, that the machine does not notice, and what is made of one again."""

import asyncio
import os
import signal
import threading
from datetime import UTC, datetime

import pytest

from generation_taking import take
from handiwork.model.errors import ConflictError
from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.images.store import Images
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.testing.blobs import FakeBlobs
from microvm_world import LIMITS, make_driver, needs_kernel, spec
from snapshot_child import generations_in

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500), needs_kernel]
WRITES = """
import time
files = [open(f"/workspace/{name}", "ab", buffering=0) for name in ("first", "second")]
while True:
    for file in files:
        file.write(b"x")
    time.sleep(0.01)
"""
RUNS = """
(exec python3 -c "$WRITES") >/dev/null 2>&1 &
while ! test -s /workspace/second; do sleep 0.05; done
"""
MAKES = """
cd /workspace
head -c 3000000 /dev/urandom > large; echo one > a; ln a b; ln -s a c; mkdir d; echo in > d/e
python3 -c 'import os; os.chown("a", 7, 9)'; chmod 4751 a; chmod 0 d/e; rm -rf /etc/ssl; mkfifo p; truncate -s 5000000 sparse
echo far >> sparse; touch -d @1234567890.5 d
"""
TELLS = """
cd /workspace; stat -c '%n %F %a %u:%g %h %s %Y' a b c d d/e p sparse; readlink c; cat a
sha256sum < large; sha256sum < sparse; ls -d /etc/ssl 2>&1; ls
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("microvm")


@pytest.fixture
async def driver(directory):
    found = make_driver(directory)
    yield found
    for sandbox_id in await found.leftovers():
        await found.destroy(sandbox_id)
    assert list((directory / "data/microvm/states").iterdir()) == []


@pytest.fixture
def generations():
    return generations_in(FakeBlobs())


async def text(box, script, *, program=("sh", "-c"), env=()):
    argv = (*program, script)
    request = ExecRequest(argv=argv, cwd="/", env=dict(env), timeout_seconds=120)
    ended = await box.exec(request)
    return ended.stdout.decode() or ended.stderr.decode()


async def remake(driver, generations, manifest, sandbox_id):
    async def make(place, ids):
        stop = threading.Event()
        return await asyncio.to_thread(generations.make, manifest, ids, place, "upper", stop)

    await driver.remake(sandbox_id, manifest.head.image, LIMITS.disk_mib, make)


async def counted(box):
    return [(await box.files.stat(f"/workspace/{name}")).size for name in ("first", "second")]


def size_in(manifest, name):
    return next(one.size for one in manifest.body.entries if one.name == name)


async def test_one_that_runs_is_taken_at_one_moment_and_gone_back_to(driver, generations):
    box = await driver.create(spec("sbx_snapruns00"))
    await text(box, MAKES)
    await text(box, RUNS, env={"WRITES": WRITES})
    before = await text(box, TELLS)
    assert "7:9" in before
    first = await take(driver, generations, box.id)
    assert first.head.new_bytes > 3_000_000
    assert first.head.skipped_count == 0
    assert size_in(first, b"first") - size_in(first, b"second") in (0, 1)
    counts = await counted(box)
    assert counts[0] >= size_in(first, b"first") > 0
    await asyncio.sleep(0.5)
    assert (await counted(box))[0] > counts[0]  # it did not end

    await text(box, "cd /workspace; echo two > a; rm -r d; echo new > n; mkdir -p /etc/ssl")
    second = await take(driver, generations, box.id)
    assert second.head.new_bytes < 200_000
    changes = {
        one.path.removeprefix(b"/workspace/"): one.change
        for one in generations.differences(box.id, 1, 2, below=b"/workspace")
    }
    assert changes.items() >= {(b"a", "changed"), (b"d", "removed"), (b"n", "added")}
    assert not changes.keys() & {b"large", b"sparse", b"c", b"p"}

    with pytest.raises(ConflictError, match="is running"):
        await remake(driver, generations, first, box.id)
    await driver.sleep(box.id)
    names = await driver.leftovers()
    await remake(driver, generations, first, box.id)
    assert await driver.leftovers() == names
    again = await driver.restore(spec(box.id))
    assert await text(again, TELLS) == before
    assert await text(again, "pidof python3") == ""
    assert await counted(again) == [size_in(first, name) for name in (b"first", b"second")]
    await again.files.write("/workspace/a", b"it can be written to")


async def test_one_that_sleeps_is_taken_and_wakes_with_its_processes(driver, generations):
    box = await driver.create(spec("sbx_snapsleep0"))
    await text(box, "echo kept > /workspace/a; sleep 1000 >/dev/null 2>&1 & true")
    pid = await text(box, "pidof sleep")
    await driver.sleep(box.id)
    taken = await take(driver, generations, box.id)
    assert size_in(taken, b"a") == 5
    box = await driver.restore(spec(box.id))
    assert await text(box, "pidof sleep") == pid != ""


async def test_of_one_whose_host_process_was_killed_what_its_journal_holds_is_taken(
    driver, generations
):
    box = await driver.create(spec("sbx_snapkill00"))
    await text(box, "cd /workspace; for n in $(seq 200); do echo $n > f$n; done; sync; rm f7")
    machine = driver._running[box.id].process
    os.kill(machine.pid, signal.SIGKILL)
    await box.closed()
    taken = await take(driver, generations, box.id)
    names = {one.name for one in taken.body.entries}
    assert {b"f%d" % n for n in range(1, 201)} - names <= {b"f7"}
    box = await driver.restore(spec(box.id))
    there = set((await text(box, "ls /workspace")).split())
    assert there == {name.decode() for name in names if name.startswith(b"f")}


async def test_what_was_lost_is_made_again_under_another_name_and_is_another(driver, generations):
    box = await driver.create(spec("sbx_snaplost00"))
    await text(box, MAKES + "echo of the first > /etc/machine-id")
    before = await text(box, TELLS)
    taken = await take(driver, generations, box.id)
    await driver.destroy(box.id)
    await remake(driver, generations, taken, "sbx_snaplost01")
    twin = await driver.restore(spec("sbx_snaplost01", hostname="twin"))
    assert await text(twin, TELLS) == before
    told = await text(twin, "cat /etc/machine-id; hostname")
    assert "of the first" not in told
    assert told.endswith("\ntwin\n")


async def test_who_gives_up_leaves_it_running_and_its_disk_as_it_was(driver, generations):
    box = await driver.create(spec("sbx_snapstop00"))
    await text(box, "head -c 20000000 /dev/urandom > /workspace/a")
    taking = asyncio.create_task(take(driver, generations, box.id))
    await asyncio.sleep(0.3)
    taking.cancel()
    await asyncio.wait([taking])
    assert await text(box, "echo on") == "on\n"

    async def make(_place, _ids):
        raise asyncio.CancelledError

    await driver.sleep(box.id)
    with pytest.raises(asyncio.CancelledError):
        await driver.remake(box.id, driver.origin(box.id).image, 64, make)
    box = await driver.restore(spec(box.id))
    assert await text(box, "stat -c %s /workspace/a") == "20000000\n"


@pytest.mark.root
async def test_a_generation_is_of_no_tier(driver, directory, generations):
    """What a machine wrote, in a sandbox of the first tier, and back: on the same image, as one file."""
    box = await driver.create(spec("sbx_snaptier00"))
    await text(box, MAKES)
    before = await text(box, TELLS)
    taken = await take(driver, generations, box.id)
    image = await driver._images.resolve("host")

    class One(Images):
        async def resolve(self, name):
            return image

        async def find(self, digest):
            return image

    other = NamespaceDriver(
        directory / "other",
        images=One(directory / "other/images"),
        clock=lambda: datetime.now(UTC),
    )
    plain = SandboxSpec(id="sbx_snaptier01", limits=LIMITS)
    try:
        await remake(other, generations, taken, plain.id)
        there = await other.restore(plain)
        assert await text(there, TELLS) == before
        await text(
            there,
            "echo from there > /workspace/n; python3 -c 'import os; os.chown(\"/workspace/n\", 12, 0)'",
        )
        back = await take(other, generations, plain.id)
    finally:
        await other.destroy(plain.id)
        await other.prepare(())
    await remake(driver, generations, back, "sbx_snaptier02")
    again = await driver.restore(spec("sbx_snaptier02"))
    assert await text(again, "cd /workspace; cat n; stat -c %u n; rm n") == "from there\n12\n"
    assert await text(again, TELLS) == before

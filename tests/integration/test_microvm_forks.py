"""Forks of machines: what they have, that they are apart, and what a kill at any moment leaves."""

import asyncio
import itertools
import os
import random
import signal
import sys
from pathlib import Path

import pytest

import residue
from handiwork.model.sandbox import ExecRequest, SandboxExit
from microvm_fork_child import CONTENT, SOURCE
from microvm_world import make_driver, needs_kernel, spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500), needs_kernel]
CHILD = Path(__file__).parents[1] / "microvm_fork_child.py"
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
echo of the first >/etc/machine-id; echo kept >/workspace/kept; chmod 640 /workspace/kept
"""
CALL = (
    "import socket; c = socket.create_connection(('192.0.2.7', 80), 60); print(c.recv(20).decode())"
)


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
async def ways_out(tmp_path):
    """Two exits, each of which says which one it is."""
    servers, found = [], []
    for name in ("first", "second"):

        async def answer(reader, writer, name=name):
            await reader.readexactly(24)
            writer.write(b"\0" + name.encode())
            writer.close()

        path = tmp_path / name
        servers.append(await asyncio.start_unix_server(answer, path))
        path.chmod(0o666)
        found.append(SandboxExit(socket_path=str(path), ca_certificate=f"CA {name}\n"))
    yield found
    for server in servers:
        server.close()


async def text(box, script, *, program=("sh", "-c"), env=()):
    argv = (*program, script)
    request = ExecRequest(argv=argv, cwd="/", env=dict(env), timeout_seconds=120)
    ended = await box.exec(request)
    return ended.stdout.decode() or ended.stderr.decode()


async def counted(box):
    """How often the one that writes wrote into each file."""
    return [(await box.files.stat(f"/workspace/{name}")).size for name in ("first", "second")]


def owner(directory, sandbox_id):
    return (directory / "data/microvm/states" / sandbox_id / "disk").stat().st_uid


@pytest.mark.parametrize("asleep", [False, True], ids=["running", "sleeping"])
async def test_a_fork_has_the_files_of_one_moment_and_is_another(
    driver, directory, ways_out, asleep
):
    one = spec(f"sbx_forkone{asleep:d}", exit=ways_out[0], hostname="one")
    two = spec(f"sbx_forktwo{asleep:d}", exit=ways_out[1], hostname="two")
    box = await driver.create(one)
    await text(box, RUNS, env={"WRITES": WRITES})
    if asleep:
        await driver.sleep(one.id)
    await driver.fork(one.id, two.id)
    if asleep:
        box = await driver.restore(one)
    before = await counted(box)
    await asyncio.sleep(0.5)
    assert (await counted(box))[0] > before[0]  # its processes live on

    twin = await driver.restore(two)
    first, second = found = await counted(twin)
    assert first - second in (0, 1)
    assert 0 < first <= before[0]
    await asyncio.sleep(0.5)
    assert await counted(twin) == found  # and not in the fork
    assert (await twin.files.stat("/workspace/kept")).mode == 0o640
    names = [await text(one, "cat /etc/machine-id; hostname") for one in (box, twin)]
    assert names[0] != names[1]
    assert names[1].endswith("\ntwo\n")
    assert "of the first" not in names[1]
    if os.geteuid() == 0:
        assert owner(directory, one.id) != owner(directory, two.id)
    told = [await text(one, CALL, program=("python3", "-c")) for one in (box, twin)]
    assert told == ["first\n", "second\n"]
    bundle = await text(twin, "tail -n 1 /etc/ssl/certs/ca-certificates.crt")
    assert bundle == "CA second\n"

    await twin.files.write("/workspace/kept", b"the fork's")
    await box.files.write("/workspace/new", b"the source's")
    assert await box.files.read("/workspace/kept") == b"kept\n"
    assert await text(twin, "ls /workspace/new 2>/dev/null; true") == ""


async def test_a_fork_of_a_fork_outlives_both(driver):
    chain = [spec(f"sbx_forkline{number}") for number in range(3)]
    box = await driver.create(chain[0])
    await box.files.write("/workspace/kept", b"kept")
    for source, target in itertools.pairwise(chain):
        await driver.fork(source.id, target.id)
        await driver.destroy(source.id)
    last = await driver.restore(chain[2])
    assert await last.files.read("/workspace/kept") == b"kept"


@pytest.mark.root
@pytest.mark.parametrize("turn", range(2))
async def test_after_a_kill_each_fork_is_whole_or_not_there(directory, turn):
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CHILD), str(directory)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert await child.stdout.readline() == b"ready\n"
        before = residue.count(directory / "data", driver_dir=directory / "data/microvm")
        assert len(before.processes) >= 2
        child.stdin.write(b"go on\n")
        await asyncio.sleep(random.uniform(0.2, 4))
    finally:
        child.send_signal(signal.SIGKILL)
        await child.wait()
    for _ in range(300):
        after = residue.count(directory / "data", before, driver_dir=directory / "data/microvm")
        if after.without("groups") == residue.Residue():
            break
        await asyncio.sleep(0.1)
    assert after.without("groups") == residue.Residue()
    heir = make_driver(directory)
    there = await heir.leftovers()
    states = directory / "data/microvm/states"
    assert [one.name for one in states.iterdir() if one.name.startswith(".")] == []
    assert SOURCE in there
    try:
        for sandbox_id in {SOURCE, there[-1]}:
            box = await heir.restore(spec(sandbox_id))
            assert (await text(box, "sha256sum </workspace/much")).split()[0] == CONTENT
            await heir.sleep(sandbox_id)
    finally:
        for sandbox_id in there:
            await heir.destroy(sandbox_id)
    assert list(states.iterdir()) == []

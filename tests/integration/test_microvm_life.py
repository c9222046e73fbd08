"""A machine's life: processes outlive sleep, files outlive kill -9, and nothing else is left."""

import asyncio
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.images.sample import SampleImages
from handiwork.sandboxes.microvm import jail
from handiwork.sandboxes.microvm.plan import Setup
from handiwork.sandboxes.microvm.probe import examine
from handiwork.sandboxes.namespace import DEFAULT_AGENT
from microvm_world import FIRST_ID, KERNEL_DIR, make_driver, needs_kernel, spec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), needs_kernel]
TESTS = Path(__file__).parents[1]
NOBODY = 65534
COUNTER = (
    "(i=0; while :; do i=$((i+1)); echo $i >/var/tmp/n; sleep 0.05; done) >/dev/null 2>&1 &"
    " while ! test -s /var/tmp/n; do sleep 0.05; done; echo old >/etc/machine-id"
)

WRITTEN_SECONDS = 5.0
"""The promise is a second; an emulated machine beside other tests may not get its turn in one."""

FILLS = (
    "import os\nf = os.open('big', os.O_WRONLY | os.O_CREAT)\n"
    "try: os.posix_fallocate(f, 0, 2 << 30)\nexcept OSError as e: print(e.errno)\nos.unlink('big')"
)
SLEEPERS = (
    "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' <$f; echo; done 2>/dev/null"
    " | grep -c '^sleep 600'; true"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("microvm")


def shell(script, **more):
    return ExecRequest(argv=("sh", "-c", script), cwd="/", timeout_seconds=120, **more)


async def text(box, script):
    return (await box.exec(shell(script))).stdout.decode()


async def test_processes_live_on_and_nothing_is_shared_with_the_past(directory):
    driver, asked = make_driver(directory), spec("sbx_lifeaaaa")
    state = directory / "data/microvm/states" / asked.id
    try:
        box = await driver.create(asked)
        await box.exec(shell(COUNTER))
        waiting = await box.start(shell("sleep 600"))
        await driver.sleep(asked.id)
        with pytest.raises(SandboxUnavailableError):
            await waiting.wait()
        assert not machines_of(asked.id)
        for name in ("disk", "memory", "devices"):
            assert stat.S_IMODE((state / name).stat().st_mode) == 0o600, name
        counted, identities, drawn = [], {"old"}, set()
        for _ in range(2):
            woken = await driver.restore(asked)
            assert not (state / "devices").exists()
            counted.append(int(await text(woken, "cat /var/tmp/n")))
            identities.add((await text(woken, "cat /etc/machine-id")).strip())
            drawn.add(await text(woken, "head -c 16 /dev/urandom | sha256sum"))
            told = datetime.fromtimestamp(int(await text(woken, "date +%s")), UTC)
            assert abs((datetime.now(UTC) - told).total_seconds()) < 60
            assert await text(woken, SLEEPERS) == "0\n"  # what was waited for is not
            await driver.sleep(asked.id)
        assert 0 < counted[0] < counted[1]
        assert (len(identities), len(drawn)) == (3, 2)
    finally:
        await driver.destroy(asked.id)
    assert not state.exists()


async def test_memory_that_cannot_be_woken_loses_no_file(directory):
    driver, asked = make_driver(directory), spec("sbx_lifebbbb")
    state = directory / "data/microvm/states" / asked.id
    try:
        box = await driver.create(asked)
        await box.files.write("/workspace/kept", b"kept")
        await driver.sleep(asked.id)
        (state / "devices").write_bytes(b"\0" * 4096)
        woken = await driver.restore(asked)
        assert await woken.files.read("/workspace/kept") == b"kept"
    finally:
        await driver.destroy(asked.id)


async def test_exhaustion_is_told_and_the_machine_lives(directory):
    driver, asked = make_driver(directory), spec("sbx_lifecccc")
    try:
        box = await driver.create(asked)
        eats = "import sys\nx = []\nwhile True: x.append(bytearray(8 << 20))"
        ended = await box.exec(ExecRequest(argv=("python3", "-c", eats), timeout_seconds=300))
        assert (ended.exit_code, ended.out_of_memory) == (137, True)
        forks = "i=0; while test $i -lt 2000; do sleep 100 >/dev/null 2>&1 & i=$((i+1)); done; wait"
        bomb = await box.exec(shell(f"({forks}) 2>&1 | head -c 200", output_limit_bytes=1000))
        assert b"ork" in bomb.stdout
        full = await box.exec(ExecRequest(argv=("python3", "-c", FILLS), cwd="/workspace"))
        assert full.stdout == b"28\n", full.stderr
        assert await text(box, "echo alive") == "alive\n"
    finally:
        await driver.destroy(asked.id)


def machines_of(sandbox_id):
    """Return the pids of the launcher of a sandbox and of its QEMU, whose own line has no id."""
    launchers = {pid for pid, line, _ in processes() if sandbox_id in line and " jail " in line}
    return launchers | {pid for pid, _, parent in processes() if parent in launchers}


def processes():
    """Yield (pid, command line, parent) of all that run."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            facts = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if facts[0] != "Z":  # an orphan that is dead waits for this host's own first process
            yield int(path.name), line, int(facts[1])


def killed(directory, sandbox_id, script):
    """Have a child make a machine and run a script in it; kill the child, and see all of it end."""
    argv = [sys.executable, str(TESTS / "microvm_child.py"), str(directory), sandbox_id, script]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready 0\n"
        pids = machines_of(sandbox_id)
        assert len(pids) == 2
        time.sleep(WRITTEN_SECONDS)
        child.kill()
        child.wait()
    left = pids
    for _ in range(200):
        left = pids & {pid for pid, _, _ in processes()}
        if not left:
            return
        time.sleep(0.05)
    raise AssertionError(f"left: {left}")


async def test_kill_9_ends_the_machine_and_its_files_are_there(directory):
    asked = spec("sbx_lifedddd")
    script = "mkdir -p /workspace/a; echo written >/workspace/a/file"
    await asyncio.to_thread(killed, directory, asked.id, script)
    driver = make_driver(directory)
    try:
        assert await driver.leftovers() == [asked.id]
        woken = await driver.restore(asked)
        assert await woken.files.read("/workspace/a/file") == b"written\n"
    finally:
        await driver.destroy(asked.id)
    states = directory / "data/microvm/states"
    assert list(states.iterdir()) == []


@pytest.mark.root
async def test_qemu_is_nobody_and_sees_nothing(directory):
    driver, asked = make_driver(directory), spec("sbx_lifeeeee")
    try:
        await driver.create(asked)
        status = check_jail(asked.id, "mnt", "pid", "net", "ipc", "uts")
        assert int(status["Uid"].split()[0]) >= FIRST_ID
        assert status["Groups"].strip() == ""
    finally:
        await driver.destroy(asked.id)


def check_jail(sandbox_id, *namespaces):
    """Check what QEMU is and sees, of which nothing is asked of itself; return its status."""
    (pid,) = machines_of(sandbox_id) - {one for one, line, _ in processes() if " jail " in line}
    process = Path(f"/proc/{pid}")
    lines = (process / "status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert len(set(status["Uid"].split())) == 1
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    for name in namespaces:
        assert (process / "ns" / name).readlink() != Path(f"/proc/self/ns/{name}").readlink()
    assert sorted(path.name for path in (process / "root").iterdir()) == sorted(
        [*("bin", "dev", "lib", "lib64", "sbin", "usr"), *jail.Parts.__struct_fields__]
    )
    assert [path.name for path in (process / "root/dev").iterdir()] == ["null"]
    net = (process / "net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in net] == ["lo"]
    mounts = (process / "mounts").read_text().splitlines()
    writable = {line.split()[1] for line in mounts if "rw" in line.split()[3].split(",")}
    assert writable <= {"/disk", "/memory", "/dev/null"}
    return status


@pytest.mark.root
def test_rootless_it_is_the_user_in_namespaces_of_its_own(open_dir):
    """Root looks: one who is not may not look at a process in a user namespace beside its own."""
    agent = shutil.copy(DEFAULT_AGENT, open_dir)
    asyncio.run(SampleImages(open_dir / "image").resolve("host"))
    (open_dir / "data").mkdir(mode=0o700)
    os.chown(open_dir / "data", NOBODY, NOBODY)
    name = "sbx_lifeffff"
    argv = [sys.executable, str(TESTS / "microvm_rootless_child.py"), str(open_dir), agent, name]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/"
    ) as child:
        assert child.stdout.readline() == "well\n"
        status = check_jail(name, "user", "mnt", "pid", "net", "ipc", "uts")
        assert status["Uid"].split() == [str(NOBODY)] * 4
        child.stdin.close()
        assert child.stdout.readline() == "[]\n"
    assert not machines_of(name)


@pytest.fixture
def open_dir():
    """A directory that another user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="handiwork-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


async def test_the_probe_makes_a_sandbox(directory):
    asked = Setup(
        acceleration="tcg",
        kind="pc",
        kernel_dir=KERNEL_DIR if KERNEL_DIR.is_dir() else Path("/"),
        first_id=FIRST_ID if os.geteuid() == 0 else 0,
    )
    place = directory / "probe"
    found = await examine(DEFAULT_AGENT, asked, place, clock=lambda: datetime.now(UTC))
    assert found.finding.detail == "boots under tcg as pc, its channel over virtio-serial"
    assert found.setup == asked
    assert list((place / "microvm/states").iterdir()) == []

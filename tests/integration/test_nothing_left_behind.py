"""After a kill -9 in the midst of fifty busy sandboxes: nothing of them is left but their state.

First of a driver alone, which must have left nothing by itself; then of a whole control plane.
"""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import control_plane_process
import residue
from busy_sandboxes import BUSY
from control_plane_process import BRAINLESS, ControlPlane
from handiwork import Handiwork
from handiwork.model.sandbox import Limits, SandboxSpec, SandboxState
from handiwork.sandboxes.cgroups import Cgroups
from handiwork.sandboxes.namespace import NamespaceDriver

CHILD = Path(__file__).parents[1] / "busy_sandboxes.py"
NAMES = [f"sbx_busy{number:02}x{os.getpid():08}" for number in range(50)]
SAMPLE = NAMES[::10]
WRITTEN_BEFORE_SECONDS = 1.0
PATIENCE_SECONDS = 30.0
"""Two seconds are promised; a test on a loaded machine waits longer, and asserts no time."""


@pytest.fixture(autouse=True)
def clean_groups(tmp_path: Path) -> Iterator[None]:
    """A test that failed on this path before, or that fails now, leaves none to another."""
    places = (tmp_path, tmp_path / "data/sandboxes")
    for place in places:
        residue.remove_groups(place)
    yield
    for place in places:
        residue.remove_groups(place)


async def killed(data_dir):
    """Make the sandboxes in a process of its own and kill it; returns what was counted before."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, str(CHILD), str(data_dir), *NAMES), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert await child.stdout.readline() == b"ready\n"
        await asyncio.sleep(WRITTEN_BEFORE_SECONDS)
        return residue.count(data_dir)
    finally:
        child.kill()
        await child.wait()


async def settled(count, *passed_over):
    """Count until nothing is left but control groups, and what is passed over, or patience ends."""
    limit = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while (left := count()).without("groups", *passed_over) != residue.Residue():
        if asyncio.get_running_loop().time() > limit:
            break
        await asyncio.sleep(0.1)
    return left


@pytest.mark.root
@pytest.mark.timeout(240)
async def test_only_state_outlives_a_kill(tmp_path):
    before = await killed(tmp_path)
    assert len(before.processes) > 4 * len(NAMES)  # the control: they were there, and were seen
    assert len(before.namespaces) >= 6 * len(NAMES)
    left = await settled(lambda: residue.count(tmp_path, before))
    assert left.without("groups") == residue.Residue()
    assert left.groups == before.groups  # nobody was there to remove them
    heir = NamespaceDriver(tmp_path, clock=lambda: datetime.now(UTC))
    assert await heir.leftovers() == NAMES
    for name in NAMES:
        await heir.sleep(name)  # as the control plane does with what ran when it was killed
    assert residue.count(tmp_path) == residue.Residue()
    for name in SAMPLE:
        box = await heir.restore(SandboxSpec(id=name))
        assert await box.files.read("/workspace/kept") == name.encode()
        assert (await box.files.read("/workspace/log")).startswith(b"line\n")
    for name in NAMES:
        await heir.destroy(name)
    assert residue.count(tmp_path) == residue.Residue()
    assert list((tmp_path / "sandboxes").iterdir()) == []


def client(plane: ControlPlane) -> Handiwork:
    return Handiwork(base_url=plane.addresses["api"], api_key=plane.admin_key)


async def busy(hw: Handiwork, making: asyncio.Semaphore) -> str:
    """Make a sandbox as an operator would, with a process that goes on and a command that is under way."""
    async with making:
        box = await hw.sandboxes.create()
        await box.processes.start(["sh", "-c", BUSY], cwd="/")
        await box.files.write("/workspace/kept", box.id.encode())
        return box.id


async def killed_plane(directory: Path) -> tuple[ControlPlane, list[str], residue.Residue]:
    """Let a control plane make them and kill it, and it alone; returns what was counted before."""
    plane = control_plane_process.start(directory, config=BRAINLESS)
    try:
        async with client(plane) as hw:
            making = asyncio.Semaphore(8)
            names = await asyncio.gather(*(busy(hw, making) for _ in NAMES))
        await asyncio.sleep(WRITTEN_BEFORE_SECONDS)
        return plane, names, residue.count(plane.data, driver_dir=plane.data / "sandboxes")
    finally:
        plane.kill()


@pytest.mark.root
@pytest.mark.timeout(300)
async def test_only_state_outlives_a_kill_of_the_control_plane(tmp_path):
    """Its proxy and what stood ready end with it too; the sockets of both are there for the next start."""
    plane, names, before = await killed_plane(tmp_path)
    assert len(before.processes) > 4 * len(names)
    assert len(before.namespaces) >= 6 * len(names)
    driver_dir = plane.data / "sandboxes"

    def count() -> residue.Residue:
        return residue.count(plane.data, before, driver_dir=driver_dir)

    left = await settled(count, "sockets", "files")
    assert left.without("groups", "files") == residue.Residue()
    with control_plane_process.running(tmp_path, config=BRAINLESS) as again:
        async with client(again) as hw:
            boxes = {box.id: box for box in await hw.sandboxes.list()}
            assert sorted(boxes) == sorted(names)
            assert {box.record.state for box in boxes.values()} == {SandboxState.SLEEPING}
            for name in names[::10]:
                await boxes[name].wake()
                assert await boxes[name].files.read("/workspace/kept") == name.encode()
                assert (await boxes[name].files.read("/workspace/log")).startswith(b"line\n")
            for box in boxes.values():
                await box.close()
    assert residue.count(plane.data, driver_dir=driver_dir) == residue.Residue()
    assert list((plane.data / "sandboxes/sandboxes").iterdir()) == []


@pytest.mark.root
async def test_groups_of_sandboxes_that_are_no_more_go_at_the_next_start(tmp_path):
    """Their state was deleted while nobody ran who could remove them; those of others stay."""
    kept, gone, *_ = NAMES
    heir = NamespaceDriver(tmp_path, clock=lambda: datetime.now(UTC))
    await heir.create(SandboxSpec(id=kept))
    await heir.sleep(kept)
    groups = Cgroups(residue.group_name(tmp_path))
    for name in (kept, gone, "pool-group-0"):
        assert groups.make(name, Limits())
    await heir.prepare(())
    assert {Path(one).name for one in residue.count(tmp_path).groups} == {kept}
    await heir.destroy(kept)
    assert residue.count(tmp_path) == residue.Residue()


def planted_process(data_dir):
    """A process that nobody's death ends, in a namespace that was known."""
    process = subprocess.Popen(["unshare", "--uts", "sleep", "600"], start_new_session=True)
    link = Path(f"/proc/{process.pid}/ns/uts")
    while link.readlink() == Path("/proc/self/ns/uts").readlink():
        continue
    yield frozenset({str(link.readlink())})
    process.kill()
    process.wait()


def planted_name(data_dir):
    """A process whose command line tells whose it is."""
    process = subprocess.Popen(["sh", "-c", f"sleep 600; : {data_dir}"], start_new_session=True)
    yield frozenset()
    os.killpg(process.pid, 9)
    process.wait()


def planted_group(data_dir):
    parents = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
    parent = next(one for one in parents if (one / "cgroup.procs").exists())
    leaf = parent / residue.group_name(data_dir) / NAMES[0]
    leaf.mkdir(parents=True)
    yield frozenset()
    leaf.rmdir()
    leaf.parent.rmdir()


def planted_mount(data_dir):
    """In a namespace of its own: whatever other tests start meanwhile would keep a copy of it."""
    (data_dir / "mounted").mkdir()
    script = 'mount -t tmpfs none "$1" && echo up && exec sleep 600'
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    with subprocess.Popen([*argv, data_dir / "mounted"], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"up\n"
        yield frozenset()
        process.kill()


def planted_socket(data_dir):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(data_dir / "left"))
        yield frozenset()
    (data_dir / "left").unlink()


def planted_file(data_dir):
    place = data_dir / "sandboxes" / f".gone-{NAMES[0]}-0"
    place.mkdir(parents=True)
    yield frozenset()
    place.rmdir()


def planted_loop(data_dir):
    (data_dir / "image").write_bytes(bytes(1 << 20))
    made = subprocess.run(
        ["losetup", "--find", "--show", data_dir / "image"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"this host gives no loop device: {made.stderr.strip()}")
    yield frozenset()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


PLANTED = {
    "processes": planted_process,
    "named": planted_name,
    "groups": planted_group,
    "mounts": planted_mount,
    "sockets": planted_socket,
    "files": planted_file,
    "loops": planted_loop,
}


@pytest.mark.root
@pytest.mark.parametrize("kind", list(PLANTED))
def test_whatever_is_left_is_counted(tmp_path, kind):
    assert residue.count(tmp_path) == residue.Residue()
    planting = PLANTED[kind](tmp_path)
    known = residue.Residue(namespaces=next(planting))
    try:
        found = residue.count(tmp_path, known)
    finally:
        assert next(planting, None) is None
    assert getattr(found, "processes" if kind == "named" else kind)
    assert residue.count(tmp_path, known) == residue.Residue()

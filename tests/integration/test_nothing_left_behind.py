"""After a kill -9 in the midst of fifty busy sandboxes: nothing of them is left but their state."""

import asyncio
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import residue
from handiwork.model.sandbox import SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver

CHILD = Path(__file__).parents[1] / "busy_sandboxes.py"
NAMES = [f"sbx_busy{number:02}x{os.getpid():08}" for number in range(50)]
SAMPLE = NAMES[::10]
WRITTEN_BEFORE_SECONDS = 1.0
PATIENCE_SECONDS = 30.0
"""Two seconds are promised; a test on a loaded machine waits longer, and asserts no time."""


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


async def settled(data_dir, known):
    """Count until nothing is left but control groups, or patience ends."""
    limit = asyncio.get_running_loop().time() + PATIENCE_SECONDS
    while (left := residue.count(data_dir, known)).without("groups") != residue.Residue():
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
    left = await settled(tmp_path, before.namespaces)
    assert left.without("groups") == residue.Residue()
    assert left.groups == before.groups  # nobody was there to remove them
    heir = NamespaceDriver(tmp_path, clock=lambda: datetime.now(UTC))
    assert await heir.leftovers() == NAMES
    for name in NAMES:
        await heir.sleep(name)  # as the control plane does with what ran when it was killed
    assert residue.count(tmp_path, before.namespaces) == residue.Residue()
    for name in SAMPLE:
        box = await heir.restore(SandboxSpec(id=name))
        assert await box.files.read("/workspace/kept") == name.encode()
        assert (await box.files.read("/workspace/log")).startswith(b"line\n")
    for name in NAMES:
        await heir.destroy(name)
    assert residue.count(tmp_path, before.namespaces) == residue.Residue()
    assert list((tmp_path / "sandboxes").iterdir()) == []


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
    (data_dir / "mounted").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", data_dir / "mounted"], check=True)
    yield frozenset()
    subprocess.run(["umount", data_dir / "mounted"], check=True)


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
    known = next(planting)
    try:
        found = residue.count(tmp_path, known)
    finally:
        assert next(planting, None) is None
    assert getattr(found, "processes" if kind == "named" else kind)
    assert residue.count(tmp_path, known) == residue.Residue()

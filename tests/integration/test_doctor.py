"""`handiwork doctor` on this host, in a chroot, and behind what Docker puts around a container by default."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

DOCTOR = [sys.executable, "-m", "handiwork", "doctor", "--json"]

CHROOT = """
set -e
mount --make-rprivate /
root=$1
mount --bind / "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
shift
exec chroot "$root" "$@"
"""

# A root of its own with Docker's marker, entered by pivot_root as Docker does.
CONTAINER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"; shift
touch .dockerenv
mount --rbind /dev dev
mkdir -p mnt/old
pivot_root . mnt/old
mount -t proc proc /proc
umount -l /mnt/old
exec "$@"
"""

# Docker's profile without CAP_SYS_ADMIN: no mounts, no namespaces (x86-64 numbers).
FILTERED = """
import ctypes, os, struct, sys
def statement(code, value): return struct.pack("HBBI", code, 0, 0, value)
def equal(value, skip): return struct.pack("HBBI", 0x15, 0, skip, value)
program = statement(0x20, 0)
for number in (165, 166, 272, 308, 155, 428, 429, 442):
    program += equal(number, 1) + statement(0x06, 0x00050001)
program += equal(435, 1) + statement(0x06, 0x00050026)  # clone3: ENOSYS, so that libc falls back
program += statement(0x06, 0x7FFF0000)
buffer = ctypes.create_string_buffer(program)
class Program(ctypes.Structure): _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
given = Program(len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(22, 2, ctypes.byref(given), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


def findings(done: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, object]]:
    assert done.stdout, done
    report = json.loads(done.stdout)
    report = report[0] if isinstance(report, list) else report
    return {one["name"]: one for one in report["findings"]}


def run(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "HOME": "/root", "TMPDIR": "/tmp"}
    return subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=50, check=False
    )


def test_this_host_passes() -> None:
    done = run(DOCTOR)
    assert done.returncode == 0, done.stdout
    assert findings(done)["host"]["ok"]


@pytest.mark.root
def test_a_chroot_is_named(tmp_path: Path) -> None:
    done = run(["unshare", "-m", "sh", "-c", CHROOT, "sh", str(tmp_path), *DOCTOR])
    host = findings(done)["host"]
    assert done.returncode == 1
    assert "chroot" in host["detail"]
    assert "pivot_root" in host["fix"]


@pytest.mark.root
@pytest.mark.parametrize("filtered", [True, False])
def test_a_default_docker_container_is_named(filtered: bool, tmp_path: Path) -> None:
    """The same container without the filter is the control: there everything works."""
    inner = [sys.executable, "-c", FILTERED, *DOCTOR] if filtered else DOCTOR
    done = run(["unshare", "-mp", "--fork", "sh", "-c", CONTAINER, "sh", str(tmp_path), *inner])
    host = findings(done)["host"]
    if filtered:
        assert "Docker" in host["detail"]
        assert "--security-opt" in host["fix"]
        assert done.returncode == 1
    else:
        assert host["ok"], host

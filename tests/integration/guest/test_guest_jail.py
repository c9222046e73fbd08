"""The jail around QEMU, seen by a program in it: as root and as an ordinary user, each beside the same outside."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from handiwork.sandboxes.namespace import DEFAULT_AGENT

NOBODY, JAILED = 65534, (3 << 29) + 8000
EPERM, ENODEV = 1, 19
LOOKS = """
import ctypes, json, os, socket, sys
shared, own, secret, port, other = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
def tried(call):
    try:
        call()
    except OSError:
        return False
    return True
def dial():
    socket.create_connection(("127.0.0.1", int(port)), 2).close()
def open_descriptors():
    return [fd for fd in range(3, 4096) if tried(lambda: os.fstat(fd))]
libc.mount(b"none", b"/", b"no such type", 0, None)
print(json.dumps({
    "descriptors": open_descriptors(),
    "mount": ctypes.get_errno(),
    "names": sorted(os.listdir("/")),
    "devices": sorted(os.listdir("/dev")),
    "variables": sorted(set(os.environ) - {"LC_CTYPE"}),
    "ids": sorted({*os.getresuid(), *os.getresgid(), *os.getgroups()}),
    "still": [bool(os.statvfs(path).f_flag & os.ST_RDONLY) for path in ("/", "/usr")],
    "secret": tried(lambda: open(secret).close()),
    "shared": [tried(lambda: open(shared).close()), tried(lambda: open(shared, "a").close())],
    "own": tried(lambda: open(own, "a").close()),
    "signal": tried(lambda: os.kill(int(other), 0)),
    "network": tried(dial),
    "new_privileges": not libc.prctl(39, 0, 0, 0, 0),
}))
"""
LIMIT = "echo 0 >/proc/sys/user/max_user_namespaces && exec {} jail -- /usr/bin/true"


class Host:
    """What there is to find: files, a port, a process of the same user."""

    def __init__(self, directory: Path, user: int | None) -> None:
        self.agent = shutil.copy(DEFAULT_AGENT, directory)
        self.as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
        self.directory = directory
        for name in ("secret", "shared", "own", "looks"):
            (directory / name).write_text(LOOKS if name == "looks" else "of the host")
            (directory / name).chmod(0o666)

    def jail(self, *options: str) -> dict:
        line = [self.agent, "jail", *options]
        for name, mode in (("shared", "ro"), ("own", "rw"), ("looks", "ro")):
            line += ["--bind", str(self.directory / name), name, mode]
        return self._told([*line, "--", "/usr/bin/python3", "-I", "/looks", "/shared", "/own"])

    def outside(self) -> dict:
        places = [str(self.directory / name) for name in ("looks", "shared", "own")]
        return self._told(["/usr/bin/python3", "-I", *places])

    def _told(self, line: list[str]) -> dict:
        with contextlib.ExitStack() as held:
            server = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            other = held.enter_context(subprocess.Popen(["sleep", "60"], **self.as_user))
            held.callback(other.kill)
            given, _ = (held.enter_context(end) for end in socket.socketpair())
            secret, port = str(self.directory / "secret"), str(server.getsockname()[1])
            done = subprocess.run(
                [*line, secret, port, str(other.pid)],
                pass_fds=[given.fileno()],
                env={"A_VARIABLE": "of the host", "PATH": "/usr/bin"},
                capture_output=True,
                text=True,
                check=False,
                timeout=30,
                **self.as_user,
            )
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
            assert found.pop("descriptors") == [given.fileno()]
            return found


@pytest.fixture
def directory():
    """A directory that another user can reach, unlike pytest's own."""
    path = Path(tempfile.mkdtemp(prefix="handiwork-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


INSIDE = {
    "mount": EPERM,
    "names": ["bin", "dev", "lib", "lib64", "looks", "own", "sbin", "shared", "usr"],
    "devices": ["null"],
    "variables": [],
    "still": [True, True],
    "secret": False,
    "shared": [True, False],
    "own": True,
    "signal": False,
    "network": False,
    "new_privileges": False,
}


def check_outside(found: dict) -> None:
    """The control: all of it can be done, and seen, by the same user without the jail."""
    assert found["names"] != INSIDE["names"]
    assert "zero" in found["devices"]
    assert "A_VARIABLE" in found["variables"]
    seen = {name: found[name] for name in ("secret", "shared", "own", "signal", "network")}
    assert seen == {
        **dict.fromkeys(("secret", "own", "signal", "network"), True),
        "shared": [True, True],
    }
    assert found["new_privileges"]


@pytest.mark.root
def test_as_root_a_program_in_the_jail_is_nobody_and_sees_nothing(directory):
    host = Host(directory, None)
    control = host.outside()
    check_outside(control)
    assert control["mount"] == ENODEV
    assert host.jail("--id", str(JAILED)) == {**INSIDE, "ids": [JAILED]}


def test_as_an_ordinary_user_it_sees_as_little(directory):
    """In a user namespace; without one it could not have the others."""
    host = Host(directory, NOBODY if os.geteuid() == 0 else None)
    check_outside(host.outside())
    assert host.jail() == {**INSIDE, "ids": [NOBODY]}


def test_where_an_ordinary_user_may_have_none_that_is_told(directory):
    host = Host(directory, None)
    line = ["unshare", "--user", "--map-root-user", "sh", "-c", LIMIT.format(host.agent)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stderr) == (
        125,
        "handiwork-guest: user namespace: this host gives none more: `handiwork doctor` says why\n",
    )


def test_it_dies_with_its_launcher_and_that_with_its_parent(directory):
    agent = shutil.copy(DEFAULT_AGENT, directory)
    starts = (
        "import subprocess, sys, time\n"
        "one = subprocess.Popen(sys.argv[1:]); print(one.pid, flush=True); time.sleep(60)\n"
    )
    line = [sys.executable, "-c", starts, agent, "jail", "--", "/usr/bin/sleep", "60"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as parent:
        launcher = int(parent.stdout.readline())
        pids = {launcher, *children(launcher)}
        parent.kill()
    wait_for(lambda: not any(alive(pid) for pid in pids))
    assert len(pids) == 2


def children(pid: int) -> list[int]:
    found: list[int] = []

    def some() -> bool:
        found[:] = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return bool(found)

    wait_for(some)
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)

"""What is different in gVisor: its own network stack, its own processes around, its memory."""

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from egress_world import HOST, SECRET
from egress_world import world as proxy_world
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import ExecRequest, Limits, SandboxExit, SandboxSpec
from handiwork.sandboxes.disks import READY, can_limit_disks
from handiwork.sandboxes.gvisor.driver import Gvisor, find_runsc
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.protocol import Wish

NETWORK = """
import json, socket
told = {}
for name, family, address in (("4", socket.AF_INET, "192.0.2.7"), ("6", socket.AF_INET6, "2001:db8::1")):
    c = socket.socket(family); c.settimeout(10)
    c.connect((address, 8080))
    told["peer" + name] = c.getpeername()[:2]
    c.sendall(b"x")
    try: told["sent" + name] = c.recv(9).decode()
    except OSError as error: told["sent" + name] = type(error).__name__
for name, kind in (("raw", (2, 3, 1)), ("ping", (2, 2, 1)), ("packet", (17, 3, 0)), ("vsock", (40, 1, 0))):
    try: socket.socket(*kind); told[name] = "made"
    except OSError as error: told[name] = "refused"
for port in (15001, 15053):
    c = socket.socket(); c.settimeout(10)
    try: c.connect(("127.0.0.1", port)); told[str(port)] = c.recv(1).decode()
    except OSError as error: told[str(port)] = type(error).__name__
print(json.dumps(told))
"""
HOLDER = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from handiwork.model.sandbox import ExecRequest, SandboxSpec
from handiwork.sandboxes.gvisor.driver import Gvisor, find_runsc
from handiwork.sandboxes.namespace import NamespaceDriver
async def main():
    driver = NamespaceDriver(Path(sys.argv[1]), clock=lambda: datetime.now(UTC), inside=Gvisor(find_runsc("")))
    box = await driver.create(SandboxSpec(id="sbx_killedaaaa"))
    await box.files.write("/workspace/kept", b"kept")
    await box.exec(ExecRequest(argv=("sh", "-c", "setsid sleep 3600 >/dev/null 2>&1 &")))
    print("ready", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""


def driver_on(path):
    runsc = find_runsc("")
    assert runsc is not None, "no runsc: ./run test installs it"
    return NamespaceDriver(path, clock=lambda: datetime.now(UTC), inside=Gvisor(runsc))


@pytest.fixture
async def driver(tmp_path):
    made = driver_on(tmp_path / "data")
    yield made
    for sandbox_id in await made.leftovers():
        await made.destroy(sandbox_id)


def shell(script, seconds=60):
    return ExecRequest(argv=("sh", "-c", script), cwd="/", timeout_seconds=seconds)


async def echo(reader, writer):
    head = await reader.readexactly(24)
    writer.write(b"\0" + str(head[5]).encode())
    writer.close()


async def test_what_sockets_show(driver, tmp_path):
    path = str(tmp_path / "exit.sock")
    async with await asyncio.start_unix_server(echo, path):
        Path(path).chmod(0o666)
        way_out = SandboxExit(socket_path=path, ca_certificate="x\n")
        box = await driver.create(SandboxSpec(id="sbx_netaaaaaa", exit=way_out))
        result = await box.exec(ExecRequest(argv=("python3", "-c", NETWORK), cwd="/"))
    told = json.loads(result.stdout or result.stderr)
    assert told == {
        "peer4": ["192.0.2.7", 8080],
        "sent4": "4",
        "peer6": ["2001:db8::1", 8080],
        "sent6": "6",
        **dict.fromkeys(("raw", "ping", "packet", "vsock"), "refused"),
        **dict.fromkeys(("15001", "15053"), "ConnectionResetError"),
    }


async def test_a_real_proxy_lets_out_what_policy_allows(driver, tmp_path):
    """curl in gVisor, through the proxy's own process: 200 and the secret injected, or 403."""
    curl = "curl -sS -m 60 -o /dev/null -w '%{http_code}\\n'"
    async with proxy_world(tmp_path) as here:
        way = await here.open(await here.injecting(methods=("GET",), paths=("/ok",)))
        way_out = SandboxExit(socket_path=way.path, ca_certificate=way.ca_certificate)
        box = await driver.create(SandboxSpec(id="sbx_proxyaaaaa", exit=way_out))
        told = await box.exec(shell(f"{curl} https://{HOST}/ok; {curl} https://{HOST}/admin"))
        assert told.stdout == b"200\n403\n", told
        for url in (f"http://{HOST}/ok", "https://unlisted.example.org/ok"):
            refused = await box.exec(shell(f"{curl} {url}"))
            assert refused.stdout == b"000\n", refused
        [seen] = here.upstream.seen
        assert seen.target == "/ok"
        assert seen.values("authorization") == [f"Bearer {SECRET}"]
        [past] = await here.records(1, allowed=True)
        assert (past.host, past.path) == (HOST, "/ok")


WRITER = "(exec 3>/workspace/open; echo held >&3; sleep 3600) >/dev/null 2>&1 & echo done >/workspace/closed"


async def test_what_was_written_is_on_the_host_while_frozen(driver):
    box = await driver.create(SandboxSpec(id="sbx_frozenaaaa"))
    await box.exec(shell(f"{WRITER}; until [ -s /workspace/open ]; do sleep 0.05; done"))
    async with box.frozen(), driver.uppers(box.id) as (upper,):
        found = []
        for name in ("closed", "open"):
            file = os.open(f"workspace/{name}", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=upper)
            found.append(os.read(file, 100))
            os.close(file)
    assert found == [b"done\n", b"held\n"]


@pytest.mark.skipif(not can_limit_disks(), reason="needs root and loop devices")
async def test_the_disk_is_bounded_and_none_is_ready_before_the_first(driver, tmp_path):
    limits = Limits(disk_mib=64)
    await driver.prepare([Wish(image="host", limits=limits)])
    assert list((tmp_path / "data/disks").iterdir()) == []
    box = await driver.create(SandboxSpec(id="sbx_diskaaaaaa", limits=limits))
    result = await box.exec(shell("head -c 20M /dev/zero >/workspace/a && echo fits"))
    assert result.stdout == b"fits\n"
    result = await box.exec(shell("head -c 80M /dev/zero >/workspace/b"))
    assert b"No space left" in result.stderr
    await driver.prepare([Wish(image="host", limits=limits)])
    assert len(list((tmp_path / "data/disks").glob("[0-9]*.img"))) == READY
    await driver.prepare(())


def holding(path):
    """The processes that have something of this directory in their mounts or arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "mountinfo").read_text() + (entry / "cmdline").read_text()
            except (OSError, ValueError):
                continue
            if str(path) in text:
                found.append(int(entry.name))
    return found


async def test_killed_with_its_holder(tmp_path):
    data = tmp_path / "data"
    holder = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(data), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert await asyncio.wait_for(holder.stdout.readline(), 120) == b"ready\n"
        assert len(holding(data)) > 3, "control: launcher, runsc, its kernel and its file server"
    finally:
        holder.send_signal(signal.SIGKILL)
        await holder.wait()
    for _ in range(200):
        if not holding(data):
            break
        await asyncio.sleep(0.05)
    assert holding(data) == []
    driver = driver_on(data)
    box = await driver.restore(SandboxSpec(id="sbx_killedaaaa"))
    assert await box.files.read("/workspace/kept") == b"kept"
    await driver.destroy("sbx_killedaaaa")


async def test_what_outgrows_its_memory_ends_alone(driver):
    if not driver.protections()["memory_limit"]:
        pytest.skip("no control groups here: there is no memory limit to test")
    neighbour = await driver.create(SandboxSpec(id="sbx_neighboura"))
    small = SandboxSpec(id="sbx_smallaaaaa", limits=Limits(memory_mib=96))
    box = await driver.create(small)
    with pytest.raises(SandboxUnavailableError, match="memory"):
        await box.exec(shell("python3 -c 'x = bytearray(2 << 30)'"))
    assert "memory" in await asyncio.wait_for(box.closed(), 30)
    assert (await neighbour.exec(shell("echo well"))).stdout == b"well\n"


async def test_as_many_processes_as_its_limit_grants(driver):
    """Each takes many of the host's tasks, one of which must not be refused."""
    spec = SandboxSpec(id="sbx_manyaaaaaa", limits=Limits(memory_mib=512, pids=128))
    box = await driver.create(spec)
    await box.exec(shell("for i in $(seq 110); do setsid sleep 4733 >/dev/null 2>&1 & done"))
    count = "cat /proc/[0-9]*/comm | grep -c -x sleep"
    wait = f'for i in $(seq 200); do [ "$({count})" = 110 ] && break; sleep 0.1; done; {count}'
    assert (await box.exec(shell(wait))).stdout == b"110\n"


async def test_nobody_inside_takes_the_marks_off(driver):
    box = await driver.create(SandboxSpec(id="sbx_marksaaaaa"))
    result = await box.exec(shell("ulimit -Hm 100 || echo refused; ulimit -n 64 && echo allowed"))
    assert result.stdout == b"refused\nallowed\n"


async def test_those_who_fork_and_hide_are_killed_at_the_timeout(driver):
    box = await driver.create(SandboxSpec(id="sbx_forksaaaaa"))
    forks = "import os, time\nif os.fork(): time.sleep(600)\n"
    forks += "while True:\n    if os.fork() == 0: os.setsid()\n    else: os._exit(0)\n"
    request = ExecRequest(argv=("python3", "-c", forks), cwd="/", timeout_seconds=1)
    assert (await box.exec(request)).timed_out
    count = "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -c 'os[.]fork'"
    late = await box.exec(shell(f"for i in $(seq 20); do {count}; done | sort -n | tail -1"))
    assert late.stdout == b"0\n", late


TRACE = """
import ctypes, errno, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype, libc.ptrace.argtypes = ctypes.c_long, [ctypes.c_long] * 4
def ptrace(*words):
    failed = libc.ptrace(*words) < 0
    return errno.errorcode[ctypes.get_errno()] if failed else "ok"
"""
OPTIONS = """
child = os.fork()
if not child: time.sleep(600)
print(ptrace(0x4206, child, 0, 0x80), ptrace(0x4206, child, 0, 1), ptrace(0x4207, child, 0, 0))
os.waitpid(child, 0)
print(ptrace(0x4200, child, 0, 0x81), ptrace(0x4200, child, 0, 1), flush=True)
print(*(ptrace(request, child, 0, 0) for request in (24, 31, 32, 24 | 1 << 32)))
print(ptrace(7, child, 0, 0))
os.kill(child, 9)
"""
ASKS_ITS_PARENT = """
print(ptrace(0, 0, 0, 0), flush=True); os.kill(os.getpid(), signal.SIGSTOP); print("on")
"""


async def test_tracing_does_not_undo_its_filter(driver):
    """There the filter judges first: who could stop a call would change it after. The rest of gdb works."""
    box = await driver.create(SandboxSpec(id="sbx_tracedaaaa"))

    async def run(*argv):
        return await box.exec(ExecRequest(argv=argv, cwd="/", timeout_seconds=60))

    told = (await run("python3", "-c", TRACE + OPTIONS)).stdout.decode().splitlines()
    assert told[:2] == ["EPERM ok ok", "EPERM ok"]
    assert told[2].split() == ["EPERM"] * 4
    assert told[3] == "ok"
    asked = await run("python3", "-c", TRACE + ASKS_ITS_PARENT)
    assert (asked.exit_code, asked.stdout) == (137, b"ok\n")
    gdb = await run("gdb", "-batch", "-nx", "-ex", "run", "-ex", "print 6*7", "/usr/bin/true")
    assert b"exited normally" in gdb.stdout, gdb
    assert b"= 42" in gdb.stdout
    strace = await run("strace", "true")
    assert b"Operation not permitted" in strace.stderr
    await driver.destroy("sbx_tracedaaaa")

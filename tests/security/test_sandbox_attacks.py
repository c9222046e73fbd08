"""What code with root inside does to its neighbours, its agent and its host; each with a control."""

import asyncio
import ctypes
import os
import shutil
import socket
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.sandbox import ExecRequest, Limits, SandboxExit, SandboxSpec
from handiwork.sandboxes.namespace import NamespaceDriver
from uppers import upper

ONE, TWO = (f"sbx_{name}{os.getpid():08}" for name in ("bad", "fair"))
SMALL = Limits(memory_mib=64, pids=200)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def open_driver(data_dir):
    return NamespaceDriver(data_dir, clock=lambda: datetime.now(UTC))


@pytest.fixture
async def driver(data_dir):
    found = open_driver(data_dir)
    yield found
    for sandbox_id in await found.leftovers():
        await found.destroy(sandbox_id)


def python(script, **fields):
    return ExecRequest(argv=("python3", "-c", script), cwd="/", **fields)


def shell(script, **fields):
    return ExecRequest(argv=("sh", "-c", script), cwd="/", **fields)


async def told(box, request):
    """Return the words of a command's output."""
    result = await box.exec(request)
    assert result.exit_code == 0, result.stderr[-500:]
    return result.stdout.decode().split()


async def held(box, script):
    """Start a script that prints a line and goes on; returns it and the words."""
    process = await box.start(python(script + "\nprint(end='', flush=True)\ntime.sleep(60)"))
    async for _, data in process.output():
        return process, data.decode().split()
    raise AssertionError("it ended")


QUOTAS = """
import ctypes, os, signal, time
libc = ctypes.CDLL(None, use_errno=True)
libc.sigqueue.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
signal.pthread_sigmask(signal.SIG_BLOCK, [40])
def count(call):
    n = 0
    while n < 400000 and call(n) >= 0: n += 1
    return n
class Attributes(ctypes.Structure):
    _fields_ = [("numbers", ctypes.c_long * 8)]
attributes = Attributes((ctypes.c_long * 8)(0, 10, 8192))
print(count(lambda n: libc.inotify_init1(0)), count(lambda n: libc.sigqueue(os.getpid(), 40, 0)),
      count(lambda n: libc.mq_open(b"/q%d" % n, 0o102, 0o600, ctypes.byref(attributes))))
"""


@pytest.mark.root
async def test_what_the_kernel_counts_by_user_is_each_sandboxs_own(driver):
    boxes = [await driver.create(SandboxSpec(id=name)) for name in (ONE, TWO)]
    process, first = await held(boxes[0], QUOTAS)
    assert all(0 < int(number) < 400000 for number in first)  # it has hit every limit
    instance = ctypes.CDLL(None).inotify_init1(0)
    assert instance >= 0, "the host's root has no inotify instance left"
    os.close(instance)
    second = await told(boxes[1], python(QUOTAS))
    assert [int(number) for number in second] == pytest.approx(
        [int(number) for number in first], rel=0.2
    )
    await process.signal(9)


@pytest.mark.root
async def test_ids_stay_apart_though_the_root_directory_was_given_away(driver, data_dir):
    box = await driver.create(SandboxSpec(id=ONE))
    states = data_dir / "sandboxes"
    (states / ONE / "meta.json").unlink()  # so that it must be told from the directories
    base = (states / ONE / "work").stat().st_uid
    await told(box, shell("chown 1000:1000 /; chmod 0 /"))
    with upper(states / ONE) as place:
        assert place.stat().st_uid == base + 1000  # the control: it was given away
    await driver.sleep(ONE)
    heir = open_driver(data_dir)
    await heir.create(SandboxSpec(id=TWO))
    assert (states / TWO / "work").stat().st_uid != base
    woken = await heir.restore(SandboxSpec(id=ONE))
    status = await told(woken, shell("stat -c %u / /root"))
    assert status == ["1000", "0"]
    for name in (ONE, TWO):
        await heir.destroy(name)


CHAIN = """
#include <unistd.h>
int main(void) { for (;;) { if (fork()) _exit(0); setsid(); } }
"""
LEADERLESS = """
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
enum { THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM };
static int run(void *x);
static void go(void) { clone(run, (char *)malloc(65536) + 65536, THREAD, 0); }
static int run(void *x)
{
    for (;;) {
        if (!fork()) { setsid(); go(); syscall(SYS_exit, 0); }
        usleep(300);
    }
}
int main(void) { signal(SIGCHLD, SIG_IGN); go(); sleep(1); syscall(SYS_exit, 0); }
"""
CONTINUED = """
#include <signal.h>
#include <time.h>
#include <unistd.h>
static void go(void)
{
    timer_t timer;
    struct sigevent how = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGCONT};
    struct itimerspec often = {{0, 50000}, {0, 50000}};
    timer_create(CLOCK_MONOTONIC, &how, &timer);
    timer_settime(timer, 0, &often, 0);
}
int main(void) { for (go();;) if (!fork()) { setsid(); go(); } else usleep(500); }
"""


def compiled(folder, source):
    (folder / "attack.c").write_text(source)
    build = ["cc", "-w", "-static", "-o", folder / "attack", folder / "attack.c"]
    subprocess.run(build, check=True)
    return (folder / "attack").read_bytes()


@pytest.mark.parametrize(
    "source", [CHAIN, LEADERLESS, CONTINUED], ids=["chain", "leaderless", "continued"]
)
async def test_a_timeout_ends_whoever_forks_against_it(driver, tmp_path, source):
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    program = compiled(tmp_path, source)
    box = await driver.create(SandboxSpec(id=ONE, limits=Limits(pids=200)))
    await box.files.write("/workspace/attack", program, mode=0o755)
    bystander = await box.start(shell("exec sleep 60"))
    run = shell("/workspace/attack & /workspace/attack & sleep 60", timeout_seconds=0.7)
    assert (await box.exec(run)).timed_out
    births = "cut -d' ' -f5 /proc/loadavg; sleep 0.3; cut -d' ' -f5 /proc/loadavg"
    first, last = await told(box, shell(births))
    assert int(last) - int(first) < 10, "it forks on"
    left = await told(box, shell("cat /proc/[0-9]*/comm | grep -c -e attack -e sleep; true"))
    assert left == ["1"]  # the bystander, whom nobody has ended or left stopped
    await bystander.signal(15)
    assert (await bystander.wait()).exit_code == 128 + 15


async def test_nobody_takes_the_questions_of_others(driver):
    box = await driver.create(SandboxSpec(id=ONE))
    script = """
import select, socket
question = b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\1a\\0\\0\\1\\0\\1"
thief, mine, client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3))
for one in (thief, mine): one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
mine.bind(("127.0.0.1", 15054))
print("control")
for address in ("127.0.0.1", "0.0.0.0"):
    try: thief.bind((address, 15053)); print("bound")
    except OSError: print("refused")
client.sendto(question, ("9.9.9.9", 53))
print(*[int(bool(select.select([one], [], [], 2)[0])) for one in (client, thief)])
"""
    assert await told(box, python(script)) == ["control", "refused", "refused", "1", "0"]


async def test_terminals_are_limited(driver):
    boxes = [await driver.create(SandboxSpec(id=name)) for name in (ONE, TWO)]
    script = """
import os, time
found = []
try:
    while True: found.append(os.open("/dev/ptmx", os.O_RDWR))
except OSError: print(len(found), end=" ")
"""
    process, (count,) = await held(boxes[0], script)
    assert int(count) == 64
    assert await told(boxes[1], python("import os; os.openpty(); print('ok')")) == ["ok"]
    await process.signal(9)


async def test_no_core_dump_program_of_the_host_is_run(driver):
    box = await driver.create(SandboxSpec(id=ONE))
    script = """
import resource as r
for limit in (0, r.RLIM_INFINITY):
    try: r.setrlimit(r.RLIMIT_CORE, (limit, limit)); r.prlimit(0, r.RLIMIT_CORE, (limit, limit))
    except (OSError, ValueError): pass
r.setrlimit(r.RLIMIT_NOFILE, (77, 77))
print(*r.getrlimit(r.RLIMIT_CORE), *r.getrlimit(r.RLIMIT_NOFILE))
"""
    assert await told(box, python(script)) == ["1", "1", "77", "77"]


async def test_root_inside_cannot_starve_its_agent(driver):
    box = await driver.create(SandboxSpec(id=ONE))
    script = """
import ctypes, os, resource
libc = ctypes.CDLL(None, use_errno=True)
def ioprio_set(pid):
    if libc.syscall(251, 1, pid, 3 << 13): raise OSError(ctypes.get_errno(), "ioprio")
def user_priority(pid):
    if not pid: return
    os.setpriority(os.PRIO_USER, 0, 19)
for call in (lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (50, 50)),
             lambda pid: resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1)),
             lambda pid: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
             lambda pid: os.sched_setparam(pid, os.sched_param(0)),
             lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(0)),
             lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
             lambda pid: os.setpriority(os.PRIO_PGRP, pid, 19), ioprio_set, user_priority):
    call(0)  # the control: to itself it may
    try: call(1); print("done")
    except PermissionError: print("refused")
"""
    assert await told(box, python(script)) == ["refused"] * 9
    assert await told(box, shell("echo alive")) == ["alive"]


async def test_buffers_of_loopback_are_limited_like_memory(driver):
    if not driver.protections()["memory_limit"]:
        pytest.skip("this host gives no memory control group")
    box = await driver.create(SandboxSpec(id=ONE, limits=SMALL))
    script = """
import socket
listener, kept, total = socket.create_server(("127.0.0.1", 5000), backlog=300), [], 0
for _ in range(200):
    client = socket.create_connection(("127.0.0.1", 5000))
    kept += [client, listener.accept()[0]]
    client.setblocking(False)
    try:
        while True: total += client.send(bytes(65536))
    except BlockingIOError: pass
print(total >> 20)
"""
    result = await box.exec(python(script))
    assert result.exit_code == 137 or 1 < int(result.stdout) < 128, result


@pytest.fixture
def exit_path():
    path = Path("/tmp") / f"handiwork-{os.getpid()}.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        yield path
    path.unlink()


@pytest.mark.parametrize(
    "script",
    [
        "rm -rf /etc/ssl/certs; mkdir -p /etc/ssl/certs/ca-certificates.crt/x",
        "rm -rf /etc/ssl; ln -s /proc /etc/ssl",
        "rm -rf /etc/ssl; ln -s /usr /etc/ssl",
        "rm -rf /etc/ssl; mkdir /etc/ssl; ln -s certs /etc/ssl/certs",
        "rm -rf /workspace /home; ln -s /usr /workspace; ln -s home /home; chmod 0 /",
    ],
)
async def test_no_guest_keeps_its_sandbox_from_waking(driver, exit_path, script):
    box = await driver.create(SandboxSpec(id=ONE))
    await told(box, shell(script))
    await driver.sleep(ONE)
    outside = SandboxExit(socket_path=str(exit_path), ca_certificate="its own")
    woken = await driver.restore(SandboxSpec(id=ONE, exit=outside))
    assert (await woken.files.read("/etc/ssl/certs/ca-certificates.crt")).endswith(b"its own")


async def test_a_broken_channel_leaves_no_process_behind(driver, data_dir):
    box = await driver.create(SandboxSpec(id=ONE))
    await told(box, shell("for i in $(seq 40); do setsid sleep 4731.5 >/dev/null 2>&1 & done"))
    for _ in range(200):  # each shows its command line once it is executed
        if len(processes_about("4731.5")) == 40:
            break
        await asyncio.sleep(0.05)
    assert len(processes_about("4731.5")) == 40
    driver._running[ONE].channel.data_received(b"\xff" * 12)  # as a guest's agent might
    with pytest.raises(SandboxUnavailableError, match="broke the protocol"):
        await box.exec(shell("true"))
    await driver.restore(SandboxSpec(id=ONE))
    assert processes_about("4731.5") == []


def processes_about(text):
    """Return the pids of processes of this host whose command line holds the text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


async def test_abstract_sockets_and_queues_are_the_sandboxs_own(driver):
    boxes = [await driver.create(SandboxSpec(id=name)) for name in (ONE, TWO)]
    script = """
import ctypes, socket, time
listener = socket.socket(socket.AF_UNIX); listener.bind("\\0attack"); listener.listen()
print(ctypes.CDLL(None).shmget(4711, 4096, 0o1666), end=" ")
"""
    look = """
import ctypes, socket
try: socket.socket(socket.AF_UNIX).connect("\\0attack"); print("seen", end=" ")
except ConnectionRefusedError: print("none", end=" ")
print("seen" if ctypes.CDLL(None).shmget(4711, 0, 0) >= 0 else "none")
"""
    process, _ = await held(boxes[0], script)
    assert await told(boxes[0], python(look)) == ["seen", "seen"]
    assert await told(boxes[1], python(look)) == ["none", "none"]
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect("\0attack")
    await process.signal(9)


async def test_file_capabilities_and_set_id_bits_give_nothing(driver):
    box = await driver.create(SandboxSpec(id=ONE))
    script = """
cp /usr/bin/cat /workspace/cat; chown 0:0 /workspace/cat; chmod 6755 /workspace/cat
python3 -c "import os; os.setxattr('/workspace/cat', 'security.capability',
    bytes.fromhex('01000002ffffffff00000000ffffffff00000000'))" && echo set
"""
    set_up = await box.exec(shell(script))
    assert set_up.stdout == b"set\n", set_up
    users = ["root", "1000"] if os.geteuid() == 0 else ["root"]
    for user in users:
        status = (await box.exec(shell("/workspace/cat /proc/self/status", user=user))).stdout
        fields = dict(
            line.split(":\t", 1) for line in status.decode().splitlines() if ":\t" in line
        )
        allowed = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 10, 31)) if user == "root" else 0
        assert int(fields["CapEff"], 16) | allowed == allowed
        assert fields["Uid"].split() == ["0" if user == "root" else "1000"] * 4


async def test_overlay_attributes_mean_nothing_to_the_host(driver, data_dir):
    box = await driver.create(SandboxSpec(id=ONE))
    script = """
import os
os.mkdir("/workspace/d")
for name in ("user.plain", "user.overlay.redirect", "user.overlay.opaque", "trusted.overlay.redirect"):
    try: os.setxattr("/workspace/d", name, b"/../..")
    except OSError: pass
try: os.mknod("/workspace/whiteout", 0o20666, 0)
except OSError: print("refused")
"""
    assert await told(box, python(script)) == ["refused"]
    with upper(data_dir / "sandboxes" / ONE) as place:
        names = os.listxattr(place / "workspace/d")
    assert "user.plain" in names
    assert not {"user.overlay.redirect", "user.overlay.opaque"} & set(names)


async def test_four_sandboxes_of_one_id_are_one(driver):
    made = await asyncio.gather(
        *(driver.create(SandboxSpec(id=ONE)) for _ in range(4)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in made) == ["ConflictError"] * 3 + [
        "NamespaceSandbox"
    ]
    await asyncio.gather(driver.sleep(ONE), driver.destroy(ONE), driver.destroy(ONE))
    assert await driver.leftovers() == []

"""What can be used up: each is used up inside, while the neighbour and the host go on."""

import asyncio
import ctypes
import os
import resource
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from attacks.world import LIMITS, held, python, shell, told
from handiwork.model.errors import SandboxUnavailableError

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOST_GROWTH_BYTES = 96 << 20
SMALL_DISK_MIB = 64


def own_bytes():
    """Return what this process, the host's side of every channel, has in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest_asyncio.fixture(loop_scope="module")
async def box(world):
    """A sandbox of its own, which may be as good as dead afterwards."""
    found = await world.sandbox()
    yield found
    await world.healthy()
    await world.driver.destroy(found.id)


def limits(world, name):
    """Skip by name where the host gives no control group for a limit; a machine has its own."""
    if hasattr(world.driver, "protections") and not world.driver.protections()[name]:
        pytest.skip(f"this host gives no {name}")


async def spent(world, box, script, **fields):
    """Run what uses something up. A kernel of its own may go down with it, alone: None."""
    try:
        return await box.exec(python(script, **fields))
    except SandboxUnavailableError:
        if world.tier.shares_kernel:
            raise
        await world.healthy()
        return None


# A refused fork is tried again: a bomb whose processes end at their limit is over before it is counted.
BOMB = """
import os, time
while True:
    try: os.fork()
    except OSError: time.sleep(0.01)
"""
THREADS = """
import threading, time
made = 0
try:
    while made < 4000: threading.Thread(target=time.sleep, args=(600,), daemon=True).start(); made += 1
except RuntimeError: pass
print(made, end="")
"""


async def test_a_fork_bomb_stays_within_its_number(world, box):
    process = await box.start(python(BOMB))
    most = 0
    for _ in range(25):
        await asyncio.sleep(0.2)
        count = await told(world.neighbour, shell("ls -d /proc/[0-9]* | wc -l"))
        assert int(count[0]) < 10  # nor does the neighbour see any of it
        most = max(most, inside(world, box))
        if most > 20:
            break
    # What a kernel of its own counts, the host does not see.
    assert 20 < most <= LIMITS.pids + 2 or not world.tier.shares_kernel, most
    await world.healthy()
    await process.signal(9)


def inside(world, box):
    """Return how many processes of a sandbox the host counts."""
    if not world.tier.shares_kernel:
        return 0
    launcher = world.driver._running[box.id].launched.process.pid
    agent = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()[0]
    space = Path(f"/proc/{agent}/ns/pid").stat().st_ino
    found = 0
    for entry in Path("/proc").glob("[0-9]*/ns/pid"):
        try:
            found += entry.stat().st_ino == space
        except OSError:
            continue
    return found


async def test_threads_count_like_processes(world, box):
    process, (made,) = await held(box, THREADS)
    assert 10 < int(made) <= LIMITS.pids or world.tier.counts_own_threads
    await world.healthy()
    await process.signal(9)


async def test_orphans_are_reaped(box):
    script = "for i in $(seq 300); do (sleep 0 &) ; done; sleep 0.5; cat /proc/[0-9]*/stat | grep -c ' Z '; true"
    assert int((await told(box, shell(script)))[-1]) < 5


MEMORY = """
kept = []
for _ in range(64): kept.append(bytearray(b"x") * (16 << 20))
print("all")
"""
FILES_OF_MEMORY = """
import os
place = os.memfd_create("attack")
for _ in range(64): os.write(place, b"x" * (16 << 20))
print("all")
"""
SHARED = """
import ctypes
libc = ctypes.CDLL(None); libc.shmat.restype = ctypes.c_void_p
for number in range(64):
    one = libc.shmget(number + 1, ctypes.c_size_t(16 << 20), 0o1600)
    if one < 0: break
    ctypes.memset(libc.shmat(one, None, 0), 1, 16 << 20)
else: print("all")
"""
PIPES = """
import fcntl, os
kept, total = [], 0
for _ in range(1500):
    kept.append(os.pipe())
    try: fcntl.fcntl(kept[-1][1], 1031, 1 << 20)  # F_SETPIPE_SZ
    except OSError: pass
    os.set_blocking(kept[-1][1], False)
    try:
        while True: total += os.write(kept[-1][1], b"x" * 65536)
    except BlockingIOError: pass
print(total >> 20)
"""


@pytest.mark.parametrize("script", [MEMORY, FILES_OF_MEMORY, SHARED], ids=["heap", "memfd", "shm"])
async def test_memory_ends_whoever_takes_it(world, box, script):
    """The control: a sixteenth of it is had."""
    limits(world, "memory_limit")
    small = await box.exec(python(script.replace("range(64)", "range(4)")))
    assert small.stdout == b"all\n", small
    result = await spent(world, box, script)
    if result is None:
        return
    assert b"all" not in result.stdout
    assert result.exit_code == 137, result
    assert result.out_of_memory
    assert await told(box, shell("echo alive")) == ["alive"]


async def test_buffers_of_pipes_are_limited(world, box):
    limits(world, "memory_limit")
    result = await spent(world, box, PIPES)
    if result is None:
        return
    assert result.exit_code == 137 or 1 < int(result.stdout) < LIMITS.memory_mib, result
    assert await told(box, shell("echo alive")) == ["alive"]


async def test_buffers_of_loopback_are_limited_like_memory(world, box):
    limits(world, "memory_limit")
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
    result = await spent(world, box, script)
    if result is None:
        return
    assert result.exit_code == 137 or 1 < int(result.stdout) < 2 * LIMITS.memory_mib, result


@pytest.mark.parametrize(("path", "mib"), [("/dev/shm", 64), ("/tmp", LIMITS.tmp_mib)])
async def test_file_systems_in_memory_have_a_size(box, path, mib):
    script = f"head -c {2 * mib}M /dev/zero >{path}/full; stat -c %s {path}/full; rm {path}/full"
    (size,) = await told(box, shell(script))
    assert mib // 2 << 20 < int(size) <= mib << 20


async def test_a_file_has_a_size(box):
    """The control: a byte less is had."""
    most = LIMITS.file_size_mib << 20
    script = f"""
import os, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
place = os.open("/workspace/large", os.O_WRONLY | os.O_CREAT)
for size in ({most}, {most} + 1):
    try: os.truncate("/workspace/large", size); print("done")
    except OSError as error: print(error.errno)
os.unlink("/workspace/large")
"""
    assert await told(box, python(script)) == ["done", "27"]


FULL = """
import errno, os
os.makedirs("/workspace/full", exist_ok=True); os.chdir("/workspace/full")
def until_refused(act, most):
    for number in range(most):
        try: act(number)
        except OSError as error: return number, errno.errorcode[error.errno]
    return number, "never"
place = os.open("large", os.O_WRONLY | os.O_CREAT)
print(*until_refused(lambda _: os.write(place, bytes(1 << 20)), MOST_MIB))
os.close(place); os.unlink("large")
print(*until_refused(lambda number: os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY)), 60000))
"""


async def test_disk_space_and_files_have_an_end_of_their_own(world):
    """The control: the neighbour writes as much, and makes files, while there is no more here."""
    limits(world, "disk_limit")
    box = await world.sandbox(msgspec.structs.replace(LIMITS, disk_mib=SMALL_DISK_MIB))
    script = FULL.replace("MOST_MIB", str(2 * SMALL_DISK_MIB))
    mib, full, files, no_more = await told(box, python(script))
    assert (full, no_more) == ("ENOSPC", "ENOSPC")
    assert SMALL_DISK_MIB // 4 < int(mib) <= SMALL_DISK_MIB
    assert int(files) > 500
    fair = f"""
import os
os.makedirs("/workspace/more", exist_ok=True)
open("/workspace/more/large", "wb").write(bytes({SMALL_DISK_MIB} << 20))
for number in range(200): open(f"/workspace/more/{{number}}", "w").close()
print(os.path.getsize("/workspace/more/large") >> 20)
"""
    assert await told(world.neighbour, python(fair)) == [str(SMALL_DISK_MIB)]
    assert await told(world.neighbour, shell("rm -rf /workspace/more; echo gone")) == ["gone"]
    await world.healthy()
    await world.driver.destroy(box.id)


async def test_descriptors_have_a_number(box):
    script = """
import os, resource
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
try: resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard + 1)); print("raised")
except (OSError, ValueError): pass
found = []
try:
    while len(found) < 100000: found.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error: print(error.errno, len(found))
"""
    error, count = await told(box, python(script))
    assert error == "24"
    assert LIMITS.open_files - 20 < int(count) < LIMITS.open_files


@pytest.mark.slow
async def test_descriptors_of_all_processes_are_paid_by_its_memory(world, box):
    limits(world, "memory_limit")
    script = """
import os
for _ in range(100):
    if os.fork(): continue
    try:
        while True: os.open("/proc/self/stat", os.O_RDONLY)
    except OSError: pass
    import time; time.sleep(600)
import time; time.sleep(15)
"""
    before = int(Path("/proc/sys/fs/file-nr").read_text().split()[0])
    await spent(world, box, script, timeout_seconds=20)
    after = int(Path("/proc/sys/fs/file-nr").read_text().split()[0])
    assert after - before < 1 << 20


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/tmp", "/dev/shm"])
async def test_inodes_in_memory_are_paid_by_its_memory(world, box, path):
    limits(world, "memory_limit")
    script = f"""
import os
for number in range(2_000_000): os.close(os.open("{path}/%d" % number, os.O_CREAT))
print("all")
"""
    result = await spent(world, box, script, timeout_seconds=50)
    if result is None:
        return
    assert b"all" not in result.stdout
    assert await told(box, shell("echo alive")) == ["alive"]


@pytest.mark.parametrize(
    "script",
    ["exec yes", "exec cat /dev/zero", "exec cat /dev/zero >&2", "yes >&2 & exec yes"],
    ids=["lines", "one line", "errors", "both"],
)
async def test_a_flood_of_output_costs_a_bounded_memory(world, box, script):
    """The control: what is kept of it is as much as was asked for."""
    before = own_bytes()
    seconds = 1.0 if world.tier.shares_kernel else 10.0
    result = await box.exec(shell(script, timeout_seconds=seconds, output_limit_bytes=1 << 20))
    assert result.timed_out
    assert result.truncated
    assert max(len(result.stdout), len(result.stderr)) == 1 << 20
    assert own_bytes() - before < HOST_GROWTH_BYTES


async def test_output_that_nobody_reads_stops_its_writer(box):
    before = own_bytes()
    floods = [await box.start(shell("exec cat /dev/zero")) for _ in range(8)]
    await asyncio.sleep(0.5)
    assert own_bytes() - before < HOST_GROWTH_BYTES
    assert await told(box, shell("echo alive")) == ["alive"]
    for one in floods:
        await one.signal(9)


async def test_busy_processors_leave_the_neighbour_its_turn(world, box):
    process = await box.start(shell("for i in $(seq 30); do while :; do :; done & done; wait"))
    for _ in range(5):
        assert await told(world.neighbour, shell("echo alive")) == ["alive"]
    await process.signal(9)


COUNTING = """
import time
until, done = time.monotonic() + 1.5, 0
while time.monotonic() < until: done += 1
print(done)
"""


async def test_a_share_of_the_processors_is_no_more_than_that(world):
    """The control: the attacker, who has more of them, does more in the same time."""
    if "cpu" not in world.driver._cgroups.limits:
        pytest.skip("this host gives no cpu_limit")
    slow = await world.sandbox(msgspec.structs.replace(LIMITS, cpu_percent=40))
    counted = {slow: 0, world.attacker: 0}
    for _ in range(6):  # the control has company on the host
        for box in counted:
            (count,) = await told(box, python(COUNTING))
            counted[box] = max(counted[box], int(count))
        if counted[world.attacker] > 1.5 * counted[slow]:
            break
    await world.driver.destroy(slow.id)
    assert counted[world.attacker] > 1.5 * counted[slow], counted
    await world.healthy()


QUOTAS = """
import ctypes, os, signal
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
      count(lambda n: libc.mq_open(b"/q%d" % n, 0o102, 0o600, ctypes.byref(attributes))), end="")
"""


@pytest.mark.root
async def test_what_the_kernel_counts_by_user_is_each_sandboxs_own(world, box):
    if not world.tier.shares_kernel:
        pytest.skip(f"the {world.driver.tier} tier has counts of its own, of its own kernel")
    process, first = await held(box, QUOTAS)
    assert all(0 < int(number) < 400000 for number in first)  # it has hit every limit
    instance = ctypes.CDLL(None).inotify_init1(0)
    assert instance >= 0, "the host's root has no inotify instance left"
    os.close(instance)
    other = await world.sandbox()
    second = await told(other, python(QUOTAS))
    assert [int(number) for number in second] == pytest.approx(
        [int(number) for number in first], rel=0.2
    )
    await process.signal(9)
    await world.driver.destroy(other.id)


async def test_timers_have_a_number(world, box):
    script = """
import ctypes
libc, timer, made = ctypes.CDLL(None), ctypes.c_void_p(), 0
while made < 1000000 and not libc.timer_create(1, None, ctypes.byref(timer)): made += 1
print(made, end="")
"""
    if world.tier.shares_kernel:
        process, (made,) = await held(box, script)
        assert 0 < int(made) < 1000000
        await process.signal(9)
    else:
        await spent(world, box, script, timeout_seconds=50)
    await world.healthy()


async def test_terminals_have_a_number(world, box):
    script = """
import os
found = []
try:
    while True: found.append(os.open("/dev/ptmx", os.O_RDWR))
except OSError: print(len(found), end="")
"""
    process, (count,) = await held(box, script)
    assert int(count) == 64 or not world.tier.shares_kernel
    assert await told(world.neighbour, python("import os; os.openpty(); print('ok')")) == ["ok"]
    await process.signal(9)

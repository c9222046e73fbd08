"""The agent's own channel, ports and commands, abused from inside."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from attacks.world import LIMITS, python, shell, told
from handiwork.model.errors import GuestError, SandboxUnavailableError
from handiwork.model.sandbox import ExecRequest, SandboxSpec

pytestmark = pytest.mark.asyncio(loop_scope="module")

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

ROOMY = msgspec.structs.replace(LIMITS, memory_mib=1024)
"""Who forks fast fills less with what was killed and is not yet taken away; else memory ends it first."""
LIVING = r"""
living() {
    cat /proc/[0-9]*/task/[0-9]*/status 2>/dev/null | awk '
    /^Name:/ { name = $2 } /^State:/ && $2 != "Z" && name == "attack" { count++ }
    END { print count + 0 }'
}
for turn in $(seq 30); do [ "$(living)" = 0 ] && break; sleep 0.1; done; living
cat /proc/$0/comm
"""
"""Threads, for a process whose leader is dead may live; who is dead and not yet buried does no more.

One that was killed ends when it is given a processor next. None that lives would end by itself.
"""


def compiled(folder, source):
    (folder / "attack.c").write_text(source)
    build = ["cc", "-w", "-static", "-o", folder / "attack", folder / "attack.c"]
    subprocess.run(build, check=True)
    return (folder / "attack").read_bytes()


@pytest.mark.parametrize(
    "source", [CHAIN, LEADERLESS, CONTINUED], ids=["chain", "leaderless", "continued"]
)
async def test_a_timeout_ends_whoever_forks_against_it(world, tmp_path, source):
    if not shutil.which("cc"):
        pytest.skip("needs a C compiler")
    program = compiled(tmp_path, source)
    box = await world.sandbox(ROOMY if world.tier.shares_kernel else LIMITS)
    await box.files.write("/workspace/attack", program, mode=0o755)
    bystander = await box.start(shell("exec sleep 60"))
    sleeps = f'until [ "$(cat /proc/{bystander.pid}/comm)" = sleep ]; do :; done'
    await told(box, shell(sleeps, timeout_seconds=30))
    run = shell("/workspace/attack & /workspace/attack & sleep 60", timeout_seconds=0.7)
    try:
        assert (await box.exec(run)).timed_out
    except SandboxUnavailableError:
        assert not world.tier.shares_kernel  # its own kernel went down, and all of them with it
        await world.healthy()
        return
    births = "cut -d' ' -f5 /proc/loadavg; sleep 0.3; cut -d' ' -f5 /proc/loadavg"
    first, last = await told(box, shell(births))
    assert int(last) - int(first) < 10, "it forks on"
    left = await told(box, shell(LIVING.replace("$0", str(bystander.pid))))
    assert left == ["0", "sleep"]  # the bystander, whom nobody has ended or left stopped
    await bystander.signal(15)
    assert (await bystander.wait()).exit_code == 128 + 15
    await world.healthy()


async def test_nobody_takes_the_questions_of_others(world):
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
    assert await told(world.attacker, python(script)) == [
        *("control", "refused", "refused", "1", "0"),
    ]


PORTS = """
import os, random, socket
listening = set()
for name in ("tcp", "tcp6", "udp", "udp6"):
    for line in open(f"/proc/net/{name}").readlines()[1:]:
        fields = line.split()
        if fields[3] in ("0A", "07"): listening.add((name, int(fields[1].rpartition(":")[2], 16)))
mine = socket.create_server(("127.0.0.1", 15055))
reached = []
for name, port in sorted(listening) + [("tcp", 15055)]:
    family = socket.AF_INET6 if name.endswith("6") else socket.AF_INET
    kind = socket.SOCK_STREAM if name.startswith("t") else socket.SOCK_DGRAM
    garbage = [os.urandom(random.Random(number).randrange(1, 1200)) for number in range(3)]
    for sent in (*garbage, bytes(12)):  # the last is a question: garbage that looks like an answer gets none
        with socket.socket(family, kind) as one:
            one.settimeout(0.3)
            try:
                one.connect(("::1" if name.endswith("6") else "127.0.0.1", port))
                one.send(sent)
                if port == 15055 or one.recv(100): reached.append(port)
            except OSError: pass
print(len(listening), *sorted(set(reached)))
"""
FLOOD = """
import os, socket
made = 0
for number in range(1500):
    one = socket.socket(); one.setblocking(False)
    try: one.connect_ex(("192.0.2.%d" % (number % 250), 80)); one.send(os.urandom(500)); made += 1
    except OSError: pass
for number in range(1500):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try: one.sendto(os.urandom(number % 1400), ("9.9.9.9", 53)); made += 1
        except OSError: pass
print("some" if made else "none")
"""


async def test_its_ports_are_reached_by_nobody(world):
    """The control: a port of one's own is."""
    count, *reached = await told(world.attacker, python(PORTS, timeout_seconds=50))
    assert int(count) >= 3
    assert reached == (["15055"] if world.tier.hides_agent else ["15053", "15055"])
    await world.healthy()


async def test_garbage_on_the_way_out_is_survived(world):
    assert await told(world.attacker, python(FLOOD, timeout_seconds=50)) == ["some"]
    assert await told(world.attacker, shell("echo alive")) == ["alive"]
    await world.healthy()


async def test_the_channel_is_in_nobodys_hands(world):
    """The control: one's own descriptors are seen by the same look."""
    script = """
import os
mine, theirs = [], []
for pid in filter(str.isdigit, os.listdir("/proc")):
    try: numbers = os.listdir(f"/proc/{pid}/fd")
    except OSError: theirs.append(pid); continue
    for number in numbers:
        try: mine.append(os.readlink(f"/proc/{pid}/fd/{number}"))
        except OSError: pass
print(*theirs, any(one.startswith("pipe:") for one in mine), any("socket:" in one for one in mine))
"""
    seen = await told(world.attacker, python(script))
    assert seen == (["1", "True", "False"] if world.tier.hides_agent else ["True", "True"])


async def test_garbage_on_the_channel_ends_the_sandbox_at_most(world):
    script = """
import os
for number in os.listdir("/proc/1/fd") if os.access("/proc/1/fd", os.R_OK) else ():
    for flags in (os.O_WRONLY | os.O_NONBLOCK, os.O_RDONLY | os.O_NONBLOCK):
        try:
            place = os.open(f"/proc/1/fd/{number}", flags)
            os.write(place, b"\\xff" * 4096) if flags & os.O_WRONLY else os.read(place, 4096)
        except OSError: pass
"""
    await world.outlives(python(script))
    await world.healthy()


async def test_frames_on_the_output_are_only_output(world):
    frames = bytes([12, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]) * 1000
    box = world.attacker
    await box.files.write("/workspace/frames", frames)
    result = await box.exec(shell("cat /workspace/frames; cat /workspace/frames >&2"))
    assert (result.stdout, result.stderr) == (frames, frames)
    assert await told(box, shell("echo alive")) == ["alive"]


async def test_a_flood_of_commands_is_answered_or_refused(world):
    """The control: some of them are answered."""
    box = await world.sandbox()
    done = await asyncio.gather(
        *(box.exec(shell("echo x")) for _ in range(2 * LIMITS.pids)), return_exceptions=True
    )
    ended = [one for one in done if not isinstance(one, BaseException)]
    assert any(one.stdout == b"x\n" for one in ended)
    kinds = {type(one) for one in done if isinstance(one, BaseException)}
    assert all(issubclass(kind, (GuestError, SandboxUnavailableError)) for kind in kinds), kinds
    assert await told(box, shell("echo alive")) == ["alive"]
    await world.healthy()


async def test_a_root_torn_down_from_inside_is_told(world):
    """Whatever is left: the host gets an answer, and the sandbox can be destroyed."""
    box = await world.sandbox()
    await told(box, shell("rm -rf /workspace /home /root /etc 2>/dev/null; true"))
    with pytest.raises(GuestError):
        await box.exec(ExecRequest(argv=("true",), cwd="/workspace"))
    result = await box.exec(ExecRequest(argv=("true",), cwd="/"))
    assert result.exit_code == 0
    await box.files.write("/workspace/again", b"again")
    assert await box.files.read("/workspace/again") == b"again"
    await world.driver.destroy(box.id)
    await world.healthy()


ODD = {
    "a directory": ("mkdir -p /workspace/odd", 13),
    "a pipe": ("rm -rf /workspace/odd; mkfifo -m 755 /workspace/odd", 13),
    "no format": (
        "rm -rf /workspace/odd; head -c 999 /dev/zero >/workspace/odd; chmod 755 /workspace/odd",
        8,
    ),
    "its own interpreter": (
        "rm -rf /workspace/odd; echo '#!/workspace/odd' >/workspace/odd; chmod 755 /workspace/odd",
        40,
    ),
    "a loop of links": ("rm -rf /workspace/odd; ln -s odd /workspace/odd", 40),
    "nothing": ("rm -rf /workspace/odd", 2),
}


@pytest.mark.parametrize("name", list(ODD))
async def test_what_cannot_run_is_an_error(world, name):
    script, number = ODD[name]
    await told(world.attacker, shell(script))
    with pytest.raises(GuestError) as raised:
        await world.attacker.exec(ExecRequest(argv=("/workspace/odd",), cwd="/"))
    assert raised.value.errno == number
    assert await told(world.attacker, shell("echo alive")) == ["alive"]


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


async def test_a_broken_channel_leaves_no_process_behind(world):
    box = await world.sandbox()
    mark = f"4731.{os.getpid():07}"  # the same is tested of other tiers at the same time
    await told(box, shell(f"for i in $(seq 40); do setsid sleep {mark} >/dev/null 2>&1 & done"))
    seen = 40 if world.tier.shares_kernel else 0
    for _ in range(800):  # each shows its command line once it is executed
        if len(processes_about(mark)) == seen:
            break
        await asyncio.sleep(0.05)
    assert len(processes_about(mark)) == seen
    world.driver._running[box.id].channel.data_received(b"\xff" * 12)  # as a guest's agent might
    with pytest.raises(SandboxUnavailableError, match="broke the protocol"):
        await box.exec(shell("true"))
    woken = await world.driver.restore(SandboxSpec(id=box.id))
    assert processes_about(mark) == []
    assert await told(woken, shell("cat /proc/[0-9]*/comm | grep -c -x sleep; true")) == ["0"]
    await world.healthy()

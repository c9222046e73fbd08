"""Pid 1 inside is the agent: ended, stopped, starved; and what a program may gain by its file."""

import os

import pytest

from attacks.world import python, shell, told

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIGNALS = """
import os, signal, time
child = os.fork()
if not child: time.sleep(600)
ends = 0
for number in range(1, 65):
    if number in (32, 33): continue
    try: os.kill(1, number); signal.pidfd_send_signal(os.pidfd_open(1), number)
    except OSError: pass
os.kill(child, 9)
print(os.waitpid(child, 0)[1])
"""


async def test_no_signal_ends_or_stops_the_agent(world):
    """The control: one's own child is ended by the same call."""
    box = await world.sandbox()
    assert await told(box, python(SIGNALS)) == ["9"]
    assert await told(box, shell("echo alive")) == ["alive"]
    await world.healthy()


async def test_killing_everybody_leaves_the_agent(world):
    box = await world.sandbox()
    bystander = await box.start(shell("exec sleep 600"))
    ended = await box.exec(shell("kill -9 -1; sleep 1"))
    assert ended.exit_code == 0 or ended.exit_code > 128, ended
    assert (await bystander.wait()).exit_code == 128 + 9  # the control: it was killed
    assert await told(box, shell("echo alive")) == ["alive"]
    await world.healthy()


STOPPED = """
import os, signal, time
child = os.fork()
if not child: time.sleep(600)
os.kill(child, signal.SIGSTOP); os.kill(1, signal.SIGSTOP)
print(os.waitpid(child, os.WUNTRACED)[1] & 0xff == 0x7f)
os.kill(child, 9)
"""


async def test_stopping_the_agent_is_without_effect(world):
    assert await told(world.attacker, python(STOPPED)) == ["True"]
    assert await told(world.attacker, shell("echo alive")) == ["alive"]
    await world.healthy()


async def test_root_inside_cannot_starve_its_agent(world):
    """The control: to itself it may."""
    script = """
import ctypes, os, platform, resource
libc = ctypes.CDLL(None, use_errno=True)
def ioprio_set(pid):
    if libc.syscall(30 if platform.machine() == "aarch64" else 251, 1, pid, 3 << 13):
        raise OSError(ctypes.get_errno(), "ioprio")
def user_priority(pid):
    if not pid: return
    os.setpriority(os.PRIO_USER, 0, 19)
for call in (lambda pid: resource.prlimit(pid, resource.RLIMIT_NOFILE, (50, 50)),
             lambda pid: resource.prlimit(pid, resource.RLIMIT_CPU, (60, 60)),
             lambda pid: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0)),
             lambda pid: os.sched_setparam(pid, os.sched_param(0)),
             lambda pid: os.sched_setaffinity(pid, os.sched_getaffinity(0)),
             lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 19),
             lambda pid: os.setpriority(os.PRIO_PGRP, pid, 19), ioprio_set, user_priority):
    call(0)
    try: call(1); print("done")
    except PermissionError: print("refused")
"""
    if not world.tier.hides_agent:
        await world.outlives(
            python(script.replace("    call(0)\n", "").replace("Permission", "OS"))
        )
        await world.healthy()
        return
    assert await told(world.attacker, python(script)) == ["refused"] * 9
    assert await told(world.attacker, shell("echo alive")) == ["alive"]


async def test_nobody_hides_from_the_out_of_memory_killer(world):
    """The control: the same file takes what makes its writer likelier to be killed."""
    script = """
for score in ("500", "-1", "-1000", "600"):
    try:
        with open("/proc/self/oom_score_adj", "w") as file: file.write(score)
        print("done")
    except PermissionError: print("refused")
"""
    lowered = "refused" if world.tier.hides_agent else "done"
    assert await told(world.attacker, python(script)) == ["done", lowered, lowered, "done"]
    await world.healthy()


async def test_no_core_dump_program_of_the_host_is_run(world):
    script = """
import resource as r
for limit in (0, r.RLIM_INFINITY):
    try: r.setrlimit(r.RLIMIT_CORE, (limit, limit)); r.prlimit(0, r.RLIMIT_CORE, (limit, limit))
    except (OSError, ValueError): pass
r.setrlimit(r.RLIMIT_NOFILE, (77, 77))
print(*r.getrlimit(r.RLIMIT_CORE), *r.getrlimit(r.RLIMIT_NOFILE))
"""
    assert await told(world.attacker, python(script)) == ["1", "1", "77", "77"]


async def test_file_capabilities_and_set_id_bits_give_nothing(world):
    """The control: both were set, and a program without them runs."""
    box = world.attacker
    script = """
cp /usr/bin/cat /workspace/cat; chown 0:0 /workspace/cat; chmod 6755 /workspace/cat
python3 -c "import os; os.setxattr('/workspace/cat', 'security.capability',
    bytes.fromhex('01000002ffffffff00000000ffffffff00000000'))" && echo set
"""
    set_up = await box.exec(shell(script))
    assert set_up.stdout == b"set\n" or not world.tier.shares_kernel, set_up
    users = ["root", "1000"] if os.geteuid() == 0 else ["root"]
    for user in users:
        status = (await box.exec(shell("/workspace/cat /proc/self/status", user=user))).stdout
        fields = dict(
            line.split(":\t", 1) for line in status.decode().splitlines() if ":\t" in line
        )
        allowed = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 10, 31)) if user == "root" else 0
        assert int(fields["CapEff"], 16) | allowed == allowed
        assert fields["Uid"].split() == ["0" if user == "root" else "1000"] * 4

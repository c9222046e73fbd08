"""Commands: their streams, limits, users, signals, and the end of everything they started."""

import hashlib
import os
import signal
import struct
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

PYTHON = "/usr/bin/python3"
TIMED_OUT, STDOUT_CUT, STDERR_CUT = 1, 2, 4

DAEMONS = """
import os, time
def daemon(depth):
    for _ in range(depth):
        if os.fork():
            os._exit(0)
        os.setsid()
    os.chdir("/")
    while True:
        time.sleep(0.05)
for depth in (1, 2, 3):
    if not os.fork():
        daemon(depth)
time.sleep(0.3)
print("ready", flush=True)
"""


def living(box, needle):
    """How many processes inside have the needle in their command line."""
    script = f"""
import os
count = 0
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        line = open(f"/proc/{{pid}}/cmdline", "rb").read()
        state = open(f"/proc/{{pid}}/stat").read().rsplit(")", 1)[1].split()[0]
    except OSError:
        continue
    if int(pid) != os.getpid() and {needle.encode()!r} in line and state != "Z":
        count += 1
print(count)
"""
    return int(box.run([PYTHON, "-c", script]).stdout)


def test_streams_code_and_environment(box):
    result = box.run("echo out; echo err >&2; exit 7")
    assert (result.code, result.flags) == (7, 0)
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert box.run(["env"], env=["PATH=/usr/bin", "A=b c"]).stdout == b"PATH=/usr/bin\nA=b c\n"
    assert box.run("pwd", cwd="/tmp").stdout == b"/tmp\n"
    assert box.run("echo a; echo b >&2", flags=2).stdout == b"a\nb\n"
    assert box.run("kill -TERM $$").code == 128 + signal.SIGTERM
    assert box.run(["cat"]).stdout == b""
    assert box.run("read x; echo $?").stdout == b"1\n"
    assert 0 < box.run("true").max_rss_kib < 100_000


def test_what_cannot_start_says_why(box):
    def refused(number, *args, **kwargs):
        with pytest.raises(Exception) as caught:
            box.run(*args, **kwargs)
        assert caught.value.number == number

    refused(2, ["no-such-program"])
    refused(2, ["/no/such/program"])
    refused(13, ["/etc/passwd"])
    refused(2, "true", cwd="/no/such/directory")
    refused(22, [])
    refused(22, ["a\0b"])
    refused(22, "true", uid=2**32 - 1)
    assert box.run("true").code == 0


def test_stdin_flows_with_credit(box):
    request = box.start(["sha256sum"], flags=1)
    window, data = 262_144, os.urandom(65_536)
    for _ in range(160):
        while window < len(data):
            kind, payload = box.next_of(request)
            window += struct.unpack("<I", payload)[0] if kind == 69 else 0
        box.send(2, request, data)
        window -= len(data)
    box.send(2, request)
    result = box.result_after_credit(request)
    assert result.stdout.split()[0].decode() == hashlib.sha256(data * 160).hexdigest()


def test_stdin_that_nobody_reads_does_not_hold_anything_up(box):
    request = box.start(["true"], flags=1)
    box.send(2, request, b"x" * 65_536)
    assert box.result_after_credit(request).code == 0
    request = box.start(["sleep", "0.2"], flags=1)
    for _ in range(4):
        box.send(2, request, b"x" * 65_536)
    assert box.ask(14)[0] == 75
    assert box.result_after_credit(request).code == 0


def test_output_waits_for_credit_and_stops_the_process(box):
    request = box.start("head -c 3000000 /dev/zero; echo done > /tmp/done")
    time.sleep(0.5)
    assert box.run("test -e /tmp/done").code == 1
    result = box.result(request)
    assert (len(result.stdout), result.code) == (3_000_000, 0)


def test_output_past_the_limit_is_dropped(box):
    script = "head -c 5000000 /dev/zero; head -c 70000 /dev/zero >&2; echo finished > /tmp/finished"
    result = box.run(script, limit=100_000)
    assert (len(result.stdout), len(result.stderr)) == (100_000, 70_000)
    assert (result.flags, result.code) == (STDOUT_CUT, 0)
    assert box.run(["cat", "/tmp/finished"]).stdout == b"finished\n"
    assert box.run("echo 12345 >&2", limit=3).flags == STDERR_CUT


def test_a_gibibyte_passes(box):
    request = box.start(["head", "-c", str(1 << 30), "/dev/zero"])
    total = 0
    while True:
        kind, payload = box.next_of(request)
        if kind == 68:
            break
        if kind == 66:
            total += len(payload)
            box.send(4, request, struct.pack("<I", len(payload)))
    assert total == 1 << 30


def test_timeout_kills_the_tree_and_its_daemons(box):
    started = time.monotonic()
    script = DAEMONS + "\ntime.sleep(60)\n"
    result = box.run([PYTHON, "-c", script, "marker-one"], timeout_ms=1000)
    assert time.monotonic() - started < 15
    assert (result.code, result.flags) == (137, TIMED_OUT)
    assert result.stdout == b"ready\n"
    assert living(box, "marker-one") == 0


def test_daemons_survive_an_orderly_end_and_die_by_signal_of_another(box):
    script = DAEMONS.replace(
        "def daemon(depth):", "def daemon(depth):\n    os.close(1); os.close(2)"
    )
    assert box.run([PYTHON, "-c", script, "marker-two"]).code == 0
    assert living(box, "marker-two") == 3


def test_background_processes_hold_the_pipes_half_a_second_only(box):
    started = time.monotonic()
    result = box.run("sleep 30 & echo started")
    assert (result.code, result.stdout) == (0, b"started\n")
    assert 0.4 < time.monotonic() - started < 10
    assert living(box, "sleep") == 1


def test_output_left_in_the_pipe_is_delivered_however_slow_the_reader(box):
    request = box.start("head -c 320000 /dev/zero; sleep 30 &")
    time.sleep(1.5)
    assert len(box.result(request).stdout) == 320_000


def test_signal_reaches_the_whole_tree(box):
    script = "trap 'echo got' USR1; (trap 'echo child' USR1; sleep 1; exit) & sleep 1; wait"
    request = box.start(script)
    assert box.next_of(request)[0] == 65
    time.sleep(0.3)
    box.send(3, request, struct.pack("<i", signal.SIGUSR1))
    assert sorted(box.result(request).stdout.split()) == [b"child", b"got"]
    request = box.start([PYTHON, "-c", DAEMONS + "time.sleep(60)", "marker-three"])
    while box.next_of(request)[0] != 66:
        pass
    box.send(3, request, struct.pack("<i", signal.SIGKILL))
    assert box.result(request).code == 137
    assert living(box, "marker-three") == 0


def test_a_fork_storm_is_killed(box):
    script = "while :; do (setsid sleep 0.05 &) ; (setsid sh -c 'sleep 60 storm' &) ; done"
    assert box.run(script, timeout_ms=700).flags & TIMED_OUT
    assert living(box, "storm") == 0


def test_the_mark_of_a_tree_cannot_be_taken_off(box):
    script = """
import resource, ctypes
libc = ctypes.CDLL(None, use_errno=True)
before = resource.prlimit(0, 10)
for attempt in (lambda: resource.setrlimit(10, (1, 1)), lambda: resource.prlimit(0, 10, (1, 1))):
    try:
        attempt()
        print("shed")
    except (OSError, ValueError):
        pass
two = (ctypes.c_ulong * 2)(1, 1)
print(libc.syscall(160, 10, two, ctypes.c_long(0)), resource.prlimit(0, 10) == before)
"""
    assert box.run([PYTHON, "-c", script]).stdout == b"-1 True\n"


def test_no_descriptor_is_inherited(box):
    script = "import os; print(sorted(int(f) for f in os.listdir('/proc/self/fd')))"
    assert box.run([PYTHON, "-c", script]).stdout == b"[0, 1, 2, 3]\n"  # 3: the listing itself
    assert b"socket" not in box.run("ls -l /proc/self/fd").stdout


def test_other_users_have_no_capability(open_box):
    box = open_box()
    result = box.run("id -u; id -g; id -G; grep CapEff /proc/self/status", uid=1000, gid=1000)
    assert result.stdout.split() == [b"1000", b"1000", b"1000", b"CapEff:", b"0" * 16]
    assert box.run("touch /etc/x", uid=1000, gid=1000).code == 1
    assert box.run("touch /etc/x && chown 33:44 /etc/x").code == 0


def test_limits_hold_for_guests(open_box):
    box = open_box(options=["--nofile", "64", "--nproc", "20", "--fsize-mib", "1"])
    assert box.run("ulimit -n").stdout == b"64\n"
    assert box.run("ulimit -c").stdout == b"0\n"
    assert box.run("head -c 2000000 /dev/zero > /tmp/big").code != 0
    assert box.run("cat /proc/self/oom_score_adj").stdout == b"500\n"
    assert box.run("for i in $(seq 40); do sleep 5 & done", timeout_ms=3000).code != 0


@pytest.fixture
def memory_cgroup():
    """A cgroup of 64 MiB, version 1 or 2; skipped where none can be made."""
    for root in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        group = root / f"guest-test-{os.getpid()}"
        limit = "memory.limit_in_bytes" if root.name == "memory" else "memory.max"
        try:
            group.mkdir()
        except OSError:
            continue
        if (group / limit).exists():
            (group / limit).write_text(str(64 << 20))
            break
        group.rmdir()
    else:
        pytest.skip("no memory cgroup can be made here")
    yield group
    end = time.monotonic() + 10
    while (group / "cgroup.procs").read_text() and time.monotonic() < end:
        time.sleep(0.01)
    group.rmdir()


def test_a_kill_for_memory_is_told(open_box, memory_cgroup):
    box = open_box(options=["--cgroup", memory_cgroup])
    assert str(box.agent_pid()) in (memory_cgroup / "cgroup.procs").read_text().split()
    result = box.run([PYTHON, "-c", "x = bytearray(200 << 20)"])
    assert (result.code, result.flags) == (137, 8)
    result = box.run("kill -9 $$")
    assert (result.code, result.flags) == (137, 0)
    assert killed_for_memory(box) == 1
    within = f"{PYTHON} -c 'x = bytearray(200 << 20)'; exit "
    result = box.run(f"{within} 2")
    assert (result.code, result.flags) == (2, 8)
    result = box.run(f"{within} 0")
    assert (result.code, result.flags) == (0, 0)
    assert killed_for_memory(box) == 3
    box.close()


def killed_for_memory(box):
    kind, payload = box.ask(22)
    assert kind == 71
    return struct.unpack("<Q", payload)[0]


def test_without_a_group_no_kill_is_counted(box):
    assert killed_for_memory(box) == 0


def test_many_at_once_and_one_too_many(box):
    requests = [box.start("sleep 1; echo $$") for _ in range(256)]
    with pytest.raises(Exception) as caught:
        box.run("true")
    assert caught.value.number == 11
    assert len({box.result(request).stdout for request in requests}) == 256
    assert box.run("true").code == 0


def test_a_host_that_does_not_read_costs_no_memory(box):
    count, path = 20_000, b"/workspace"
    frame = struct.pack("<IIB3xI", 4 + len(path), 0, 13, len(path)) + path
    frames = [frame[:4] + struct.pack("<I", 1000 + i) + frame[8:] for i in range(count)]
    box.sock.settimeout(60)
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(box.sock.sendall, b"".join(frames))
        time.sleep(1)
        status = Path(f"/proc/{box.agent_pid()}/status").read_text()
        resident_kib = int(status.split("VmRSS:")[1].split()[0])
        names = [box.frame()[2] for _ in range(count)]
        sent.result(20)
    assert set(names) == {struct.pack("<I", len(path)) + path}
    assert resident_kib < 8192


def test_channel_garbage_ends_the_sandbox(open_box):
    for garbage in (b"\xff" * 64, struct.pack("<IIB3x", 0, 1, 200), os.urandom(4096)):
        box = open_box()
        pids = box.processes()
        box.start(["sleep", "60"])
        box.sock.sendall(garbage)
        box.launcher.wait(10)
        assert not box.leaves(pids)


def test_end_of_channel_leaves_nothing(box):
    box.run([PYTHON, "-c", DAEMONS, "marker"])
    pids = box.processes()
    assert len(pids) == 4
    box.close()
    assert not box.leaves(pids)


def test_killed_launcher_leaves_nothing(box):
    box.run([PYTHON, "-c", DAEMONS, "marker"])
    pids = box.processes()
    box.launcher.kill()
    box.launcher.wait(10)
    assert not box.leaves(pids)


def test_death_of_the_parent_leaves_nothing(open_box):
    """The channel stays open here: only the death signal can end the sandbox."""
    script = "import subprocess,sys; subprocess.run(sys.argv[1:], close_fds=False)"
    box = open_box(parent=[PYTHON, "-c", script])
    launcher = box.child_of(box.launcher.pid)
    agent = box.child_of(launcher)
    box.launcher.kill()
    box.launcher.wait(10)
    assert not box.leaves([launcher, agent])


def test_usage_errors_say_what(agent_binary):
    def run(*args):
        return subprocess.run([agent_binary, *args], capture_output=True, text=True)

    assert run().returncode == 126
    assert run("launch", "--bogus", "1").returncode == 126
    assert run("launch", "--root", "/", "--state", "/nonexistent").returncode == 125
    assert run("version").stdout == "1\n"
    lines = run("probe").stdout.splitlines()
    assert {line.split()[0] for line in lines} >= {"userns", "overlay", "nftables", "seccomp"}


def test_sandboxes_start_in_parallel(open_box):
    boxes = [open_box() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert [r.stdout for r in threads.map(lambda b: b.run("echo hi"), boxes)] == [b"hi\n"] * 8

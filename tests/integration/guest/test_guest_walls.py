"""What root inside tries to undo, and cannot; each attempt with a control that shows it could work at all."""

import os
import subprocess
from pathlib import Path

import pytest

from handiwork.sandboxes.probe import has_own_clocks

PYTHON = "/usr/bin/python3"
needs_own_clocks = pytest.mark.skipif(
    not has_own_clocks(), reason="needs time namespaces: Linux 5.6, CONFIG_TIME_NS"
)

CALLS = """
import ctypes, errno, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, number, *args):
    ctypes.set_errno(0)
    result = libc.syscall(number, *args)
    print(name, "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()])
"""

REFUSED = {
    "mount": ("165, b'x', b'/tmp', b'tmpfs', 0, 0", "EPERM"),
    "umount": ("166, b'/proc/sys', 2", "EPERM"),
    "pivot_root": ("155, b'/tmp', b'/tmp'", "EPERM"),
    "chroot": ("161, b'/tmp'", "EPERM"),
    "unshare_user": ("272, 0x10000000", "EPERM"),
    "setns": ("308, 0, 0", "EPERM"),
    "clone_user": ("56, 0x10000011, 0, 0, 0, 0", "EPERM"),
    "clone_net": ("56, 0x40000011, 0, 0, 0, 0", "EPERM"),
    "clone3": ("435, 0, 0", "ENOSYS"),
    "io_uring": ("425, 1, 0", "ENOSYS"),
    "bpf": ("321, 0, 0, 0", "EPERM"),
    "perf": ("298, 0, 0, 0, 0, 0", "EPERM"),
    "keyctl": ("250, 0, 0", "EPERM"),
    "userfaultfd": ("323, 0", "EPERM"),
    "ptrace_pid_1": ("101, 16, 1, 0, 0", "EPERM"),
    "ptrace_seize_pid_1": ("101, 0x4206, 1, 0, 0", "EPERM"),
    "vm_write": ("311, 1, 0, 0, 0, 0, 0", "EPERM"),
    "open_by_handle": ("304, 0, 0, 0", "EPERM"),
    "module": ("313, 0, 0, 0", "EPERM"),
    "kexec": ("246, 0, 0, 0, 0", "EPERM"),
    "reboot": ("169, 0xfee1dead, 672274793, 0x1234567, 0", "EPERM"),
    "fsopen": ("430, b'tmpfs', 0", "EPERM"),
    "open_tree": ("428, -100, b'/', 1", "EPERM"),
    "tiocsti": ("16, 0, 0x5412, b'x'", "EPERM"),
    "pidfd_getfd": ("438, 0, 0, 0", "EPERM"),
    "unknown": ("999, 0", "ENOSYS"),
    "personality": ("135, 0x0400000", "EPERM"),
}


def test_forbidden_calls(box):
    lines = [f"call({name!r}, {args})" for name, (args, _) in REFUSED.items()]
    lines += ["call('control', 39)"]
    result = box.run([PYTHON, "-c", CALLS + "\n".join(lines)])
    answers = dict(line.split() for line in result.stdout.decode().splitlines())
    assert answers == {name: error for name, (_, error) in REFUSED.items()} | {"control": "ok"}


CLOCKS = """
import os, time
ticks = os.sysconf("SC_CLK_TCK")
def started(pid):
    return int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[19]) / ticks
booted = next(int(line.split()[1]) for line in open("/proc/stat") if line.startswith("btime"))
print(float(open("/proc/uptime").read().split()[0]), time.clock_gettime(time.CLOCK_MONOTONIC),
      time.clock_gettime(time.CLOCK_BOOTTIME), time.time() - booted, started(1), started(os.getpid()))
"""


def clocks_of(output):
    return [float(text) for text in output.split()]


@needs_own_clocks
def test_the_hosts_uptime_is_not_told(box):
    """The control is the same script on the host, which has been up for longer than a test takes."""
    told = box.run([PYTHON, "-c", CLOCKS])
    assert all(0 <= one < 20 for one in clocks_of(told.stdout)), told
    host = subprocess.run([PYTHON, "-c", CLOCKS], capture_output=True, check=True)
    assert min(clocks_of(host.stdout)[:4]) > 20


@needs_own_clocks
def test_ages_and_timers_are_by_the_own_clocks(box):
    begun = box.run("sleep 0.3; cut -d' ' -f1 /proc/uptime")
    assert begun.code == 0
    late = box.run(["/bin/sleep", "30"], timeout_ms=300)
    assert late.flags & 1, late
    assert clocks_of(box.run([PYTHON, "-c", CLOCKS]).stdout)[0] > float(begun.stdout)


def test_x32_calls_kill(box):
    assert box.run([PYTHON, "-c", CALLS + "call('x32', 0x40000000 + 39)"]).code == 128 + 31


def test_pid_1_cannot_be_looked_into_or_ended(box):
    script = """
import os, signal
for name in ("mem", "environ", "maps", "fd", "root", "cwd", "exe", "auxv", "stack", "syscall", "ns/net"):
    path = "/proc/1/" + name
    for how in (lambda: open(path, "rb").read(1), lambda: open(path, "wb"), lambda: os.listdir(path),
                lambda: os.readlink(path)):
        try:
            how(); print(name, "reached")
        except OSError:
            pass
open("/proc/self/mem", "rb"), os.listdir("/proc/self/fd"), os.readlink("/proc/self/exe")
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGSEGV, signal.SIGINT):
    os.kill(1, number)
print("alive", os.path.exists("/proc/1"))
print(open("/proc/1/cmdline").read().strip("\\0"))
"""
    result = box.run([PYTHON, "-c", script])
    assert result.stdout.decode().splitlines() == ["alive True", "handiwork-guest"], result
    assert box.ask(14)[0] == 75


def test_system_files_are_read_only_or_hidden(box):
    script = """
for path in ("/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward", "/proc/sysrq-trigger",
             "/proc/sys/kernel/core_pattern", "/proc/sys/net/ipv4/ping_group_range", "/usr/bin/x", "/sys/x",
             "/dev/x", "/etc/ssl/certs/ca-certificates.crt"):
    try:
        f = open(path, "w"); f.write("1"); f.close(); print(path, "written")
    except OSError:
        pass
print(len(open("/proc/timer_list").read()), open("/proc/sys/kernel/ostype").read().strip())
"""
    result = box.run([PYTHON, "-c", script])
    written = result.stdout.decode().split()
    # The bundle is not mounted in this sandbox: its path is an ordinary file, the positive control.
    # /proc/sysrq-trigger is /dev/null there: what is written to it goes nowhere.
    assert set(written) <= {
        "/etc/ssl/certs/ca-certificates.crt",
        "/proc/sysrq-trigger",
        "written",
        "0",
        "Linux",
    }
    assert "/etc/ssl/certs/ca-certificates.crt" in written
    assert written[-2:] == ["0", "Linux"]


def test_the_bundle_is_read_only(open_box, tmp_path):
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("certificates\n")
    box = open_box(options=["--bundle", bundle])
    path = "/etc/ssl/certs/ca-certificates.crt"
    assert box.run(["cat", path]).stdout == b"certificates\n"
    assert box.run(f"echo x > {path}").code != 0
    assert box.run(f"rm -f {path}").code != 0
    assert box.run("rm -rf /etc/ssl").code != 0
    assert not (box.folder / "state/upper/etc/ssl/certs/ca-certificates.crt").read_bytes()


@pytest.mark.parametrize(
    "attempt",
    [
        "nft flush ruleset",
        "nft delete table inet handiwork",
        "nft add table inet mine",
        "ip route flush table all",
        "ip addr add 10.1.1.1/24 dev lo",
        "ip link set lo down",
        "ip link add dummy0 type dummy",
        "ip route add default dev lo",
        "nsenter -t 1 -n true",
        "unshare -Ur true",
        "mount -t tmpfs x /mnt",
        "bwrap --ro-bind / / true",
        "sysctl -w net.ipv4.ip_forward=1",
    ],
)
def test_the_capture_cannot_be_undone(attempt, open_box, open_exit):
    def greet(flow, kind, name, port):
        flow.sendall(b"\0greetings")

    program = attempt.split()[0]
    if not any(Path(d, program).exists() for d in ("/usr/bin", "/usr/sbin")):
        pytest.skip(f"{program} is not installed on this machine")
    box = open_box(exit_path=open_exit(greet).path)
    box.run("mkdir -p /mnt")
    assert box.run(attempt).code != 0
    script = "import socket; print(socket.create_connection(('1.2.3.4', 80), 5).recv(9))"
    assert box.run([PYTHON, "-c", script]).stdout == b"b'greetings'\n"


def test_undoing_works_where_nothing_forbids_it():
    """The control: the same rules can be flushed by one who holds the capability."""
    if os.geteuid() or not Path("/usr/sbin/nft").exists():
        pytest.skip("needs root and nft")
    script = (
        "nft add table inet t && nft flush ruleset && ip link set lo up && mount -t tmpfs x /mnt"
    )
    command = ["unshare", "-n", "-m", "sh", "-c", script]
    assert subprocess.run(command, check=False).returncode == 0


def test_root_inside_is_nobody_outside(open_box, id_base):
    box = open_box()
    box.run("echo x > /workspace/f; chmod 4755 /workspace/f; mkdir /workspace/d")
    host = (box.folder / "state/upper/workspace/f").stat()
    assert host.st_uid == id_base
    status = Path(f"/proc/{box.agent_pid()}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split()[0] == str(id_base)
    assert fields["Groups"].strip() == ""
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"


def test_image_keeps_its_bytes(box):
    before = {p: p.lstat().st_mtime_ns for p in box.image.rglob("*")}
    box.run(
        "echo changed >> /etc/passwd; rm -rf /var; touch /new; chmod 777 /etc; chown 0:0 /etc/group"
    )
    assert {p: p.lstat().st_mtime_ns for p in box.image.rglob("*")} == before
    assert "changed" not in (box.image / "etc/passwd").read_text()


def test_planted_links_in_an_earlier_upper_lead_nowhere(open_box, id_base, tmp_path):
    box = open_box()
    outside = tmp_path / "outside"
    outside.mkdir()
    upper = box.folder / "state/upper"
    box.close()
    (upper / "etc").mkdir(exist_ok=True)
    for name in ("dev", "tmp", "sys", "etc/ssl"):
        (upper / name).symlink_to(outside)
    for name in ("dev", "tmp", "sys", "etc/ssl", "etc"):
        os.chown(upper / name, id_base, id_base, follow_symlinks=False)
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("certificates")
    second = open_box(folder=box.folder, options=["--bundle", bundle])
    assert (
        second.run("cat /etc/ssl/certs/*; echo x > /tmp/x; echo > /dev/null").stdout
        == b"certificates"
    )
    assert list(outside.iterdir()) == []


def test_namespaces_are_the_sandboxs_own(box):
    for name in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup"):
        assert (
            Path(f"/proc/{box.agent_pid()}/ns/{name}").readlink()
            != Path(f"/proc/self/ns/{name}").readlink()
        )
    assert box.run(["hostname"]).stdout == b"sandbox\n"


FORKS_BY_USER = """
import os, signal, time
go, counts = os.pipe(), os.pipe()
for uid in (1000, 2000, 3000):
    if not os.fork():
        os.setresuid(uid, uid, uid)
        os.read(go[0], 1)
        made = 0
        try:
            while os.fork():
                made += 1
        except BlockingIOError:
            os.write(counts[1], bytes([made]))
        signal.pause()
total = 0
for _ in range(3):
    os.write(go[1], b"x")
    total += os.read(counts[0], 1)[0]
print(total)
"""


def test_the_limit_of_processes_holds_for_all_users_together(open_box):
    box = open_box(options=["--nproc", "40"])
    total = int(box.run([PYTHON, "-c", FORKS_BY_USER], timeout_ms=5000).stdout)
    assert 25 < total < 40


def test_guests_cannot_take_a_service_s_place_before_the_killer(open_box):
    sheltered = ["choom", "-n", "-600", "--"]
    if subprocess.run([*sheltered, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs CAP_SYS_RESOURCE")
    box = open_box(parent=sheltered)
    assert Path(f"/proc/{box.launcher.pid}/oom_score_adj").read_text() == "-600\n"
    script = (
        "for n in -600 -1 0; do echo $n; echo $n > /proc/self/oom_score_adj && echo taken; done"
    )
    assert box.run(script).stdout == b"-600\n-1\n0\ntaken\n"
    assert Path(f"/proc/{box.agent_pid()}/oom_score_adj").read_text() == "0\n"

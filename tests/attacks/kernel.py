"""The kernel itself: its settings, its devices, its rarely guarded calls, its clocks."""

from attacks.table import ABSENT, READ_ONLY, REFUSED, UNKNOWN, Attack, call

WRITTEN = [
    call(f"{path} is opened for writing", f"opened('{path}', os.O_WRONLY)", inside=inside | REFUSED)
    for path, inside in (
        ("/proc/sys/kernel/core_pattern", READ_ONLY),
        ("/proc/sys/kernel/modprobe", READ_ONLY | ABSENT),
        ("/proc/sys/kernel/panic", READ_ONLY),
        ("/proc/sys/vm/drop_caches", READ_ONLY),
        ("/proc/sys/vm/overcommit_memory", READ_ONLY),
        ("/proc/sys/fs/binfmt_misc/register", READ_ONLY | ABSENT),
        ("/proc/sys/net/ipv4/ip_forward", READ_ONLY),
        ("/proc/irq/default_smp_affinity", READ_ONLY),
        ("/sys/kernel/uevent_helper", ABSENT),
        ("/sys/power/state", ABSENT),
        ("/sys/module/kernel/parameters/panic", ABSENT),
        ("/sys/kernel/debug/sched", ABSENT),
    )
]
EMPTY = frozenset({"empty"})
READ = [
    Attack(
        f"{path} is read",
        f"""
try:
    place = os.open("{path}", os.O_RDONLY | os.O_NONBLOCK)
    print("done" if os.read(place, 16) else "empty")
except OSError as error: print(word(error.errno))
""",
        REFUSED | EMPTY | ABSENT,
        outside,
    )
    for path, outside in (
        ("/proc/kcore", frozenset({"done"})),
        ("/proc/kmsg", frozenset({"done", "EAGAIN"})),
        ("/proc/key-users", frozenset({"done"})),
        ("/proc/timer_list", frozenset({"done"})),
        ("/proc/1/environ", frozenset({"done"})),
        ("/proc/1/maps", frozenset({"done"})),
        ("/proc/1/auxv", frozenset({"done"})),
        ("/proc/1/syscall", frozenset({"done"})),
        ("/proc/1/stack", frozenset({"done"})),
        ("/proc/kpagecount", frozenset({"done"})),
        ("/proc/slabinfo", frozenset({"done"})),
    )
]
MASKED = [
    Attack(
        "sysrq is triggered",
        """
try: masked = os.major(os.stat("/proc/sysrq-trigger").st_rdev) == 1
except FileNotFoundError: masked = False
print("masked" if masked else opened("/proc/sysrq-trigger", os.O_WRONLY))
""",
        frozenset({"masked"}) | REFUSED | ABSENT,
    ),
]
DEVICES = [
    call(f"{path} is opened", f"opened('{path}', os.O_RDWR)", inside=ABSENT)
    for path in (
        *("/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/loop-control", "/dev/loop0", "/dev/fuse"),
        *("/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/uinput", "/dev/console"),
    )
]
NODES = [
    call(
        f"{what} is made and opened",
        f"some([tried(os.mknod, '/mnt/node', {mode} | 0o600, os.makedev({major}, {minor}))])",
    )
    for what, mode, major, minor in (
        ("a disk", "0o060000", 8, 0),
        ("the loop device", "0o060000", 7, 0),
        ("the kernel's memory", "0o020000", 1, 1),
        ("a port of I/O", "0o020000", 1, 4),
    )
]
CALLS = [
    call("reboot", 'kernel("reboot", 1, 2, 3, None)', outside=frozenset({"EINVAL"})),
    call(
        "another kernel",
        'kernel("kexec_load", 0, 99, None, 0xffff)',
        outside=frozenset({"EINVAL"}),
    ),
    call(
        "a module put in",
        'kernel("init_module", None, 0, b"")',
        outside=frozenset({"ENOEXEC", "EFAULT"}),
    ),
    call(
        "a module taken out",
        'kernel("delete_module", b"attack-none", 0x800)',
        outside=frozenset({"ENOENT"}),
    ),
    call("swap on", 'kernel("swapon", b"/mnt", 0)', outside=frozenset({"EINVAL", "EISDIR"})),
    call("swap off", 'kernel("swapoff", b"/mnt")', outside=frozenset({"EINVAL", "EISDIR"})),
    call("accounting", 'kernel("acct", b"/mnt")', outside=frozenset({"EISDIR"})),
    call(
        "quotas",
        'kernel("quotactl", 0x80000700, b"/dev/none", 0, ctypes.c_uint(0))',
        outside=frozenset({"ENOENT", "EINVAL"}),
    ),
    call("ports of I/O", 'kernel("iopl", 3)'),
    call("one port of I/O", 'kernel("ioperm", 0x80, 1, 1)'),
    call("segments", 'kernel("modify_ldt", 0, ctypes.create_string_buffer(64), 64)'),
    call("no random addresses", 'kernel("personality", 0x0040000)'),
    call(
        "a program of the kernel",
        'kernel("bpf", 0, (ctypes.c_uint32 * 16)(2, 4, 4, 1), 64)',
    ),
    call(
        "counters of the processor",
        'kernel("perf_event_open", (ctypes.c_uint32 * 32)(1, 128), -1, 0, -1, 0)',
    ),
    call("faults taken over", 'kernel("userfaultfd", 0)'),
    call(
        "a second way to make calls",
        'kernel("io_uring_setup", 1, (ctypes.c_uint32 * 40)())',
        inside=UNKNOWN,
    ),
    call("memory hidden from the host", 'kernel("memfd_secret", 0)', inside=UNKNOWN),
    call("all opens watched", 'kernel("fanotify_init", 0, 0)'),
    call("the kernel's log", 'kernel("syslog", 10, None, 0)'),
    call("the name of the host", 'kernel("sethostname", b"attacked", 8)'),
    call("its domain", 'kernel("setdomainname", b"attacked", 8)'),
    Attack(
        "the clock set",
        "import time\nprint(tried(lambda: time.clock_settime(0, time.clock_gettime(0))))",
    ),
    call("the clock slowed", 'kernel("clock_adjtime", 0, (ctypes.c_uint64 * 32)())'),
]
KEYS = [
    call("a key added", 'kernel("add_key", b"user", b"attack", b"x", 1, -2)'),
    call(
        "a key asked for",
        'kernel("request_key", b"user", b"attack-none", None, -2)',
        outside=frozenset({"ENOKEY"}),
    ),
    call("a keyring joined", 'kernel("keyctl", 1, b"attack")'),
]
SIGSYS = frozenset({"signal31"})
OTHER_CALLS = [
    Attack(
        "calls of the 32-bit table",
        """
import mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(b"\\xb8\\x14\\0\\0\\0\\xcd\\x80\\xc3")  # mov eax, getpid; int 0x80; ret
run = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
print(in_child(lambda: "done" if run() == os.getpid() else "ENOSYS"))
""",
        SIGSYS,
    ),
]
PRIVILEGES = [
    call("a priority above all", "tried(os.setpriority, 0, 0, -20)"),
    call("real-time scheduling", "tried(os.sched_setscheduler, 0, 1, os.sched_param(1))"),
    Attack(
        "a capability that was dropped",
        """
head, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
libc.capget(head, sets)
sets[0] |= 1 << 21; sets[1] |= 1 << 21  # CAP_SYS_ADMIN
print(word(ctypes.get_errno() if libc.capset(head, sets) else 0))
""",
    ),
    Attack(
        "words typed into another's terminal",
        """
import fcntl, termios
one, other = os.openpty()
print(in_child(lambda: (os.setsid(), fcntl.ioctl(other, termios.TIOCSCTTY, 0),
                        tried(fcntl.ioctl, other, termios.TIOCSTI, b"x"))[2]))
""",
    ),
]
ALL = WRITTEN + READ + MASKED + DEVICES + NODES + CALLS + KEYS + OTHER_CALLS + PRIVILEGES

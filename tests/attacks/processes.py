"""Pid 1 inside is the agent: looked into, written to, compared, renamed."""

from attacks.table import Attack, call

ALL = [
    call("pid 1 traced", 'kernel("ptrace", 0x4206, 1, 0, 0)'),
    *(
        Attack(
            f"pid 1's memory by {name}",
            f"""
buffer = ctypes.create_string_buffer(8)
here, there = (ctypes.c_uint64 * 2)(ctypes.addressof(buffer), 8), (ctypes.c_uint64 * 2)(4096, 8)
print(kernel("{name}", 1, here, 1, there, 1, 0))
""",
            outside=frozenset({"EFAULT"}),
        )
        for name in ("process_vm_readv", "process_vm_writev")
    ),
    call("pid 1's memory opened", "opened('/proc/1/mem', os.O_RDWR)"),
    call("pid 1's descriptors listed", "tried(os.listdir, '/proc/1/fd')"),
    call("pid 1's program opened", "opened('/proc/1/exe', os.O_RDONLY)"),
    call("a descriptor of pid 1 taken", "kernel('pidfd_getfd', os.pidfd_open(1), 0, 0)"),
    call("pid 1's pages moved", "kernel('move_pages', 1, 0, None, None, None, 0)"),
    call("pid 1 compared", "kernel('kcmp', 1, os.getpid(), 3, 0, 0)"),
    Attack(
        "pid 1 made the first to be killed",
        "print(tried(lambda: open('/proc/1/oom_score_adj', 'w').write('1000')))",
    ),
    Attack(
        "pid 1 sent to another group of mappings",
        "print(tried(lambda: open('/proc/1/clear_refs', 'w').write('1')))",
    ),
    Attack(
        "pid 1 renamed",
        "print(tried(lambda: open('/proc/1/comm', 'w').write('x')))",
    ),
]

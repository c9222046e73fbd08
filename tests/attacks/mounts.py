"""Mounts, roots and namespaces: whoever makes one of these chooses what the kernel shows."""

from attacks.table import ABSENT, DONE, READ_ONLY, REFUSED, UNKNOWN, Attack, call

MOUNTS = [
    call("a tmpfs", 'kernel("mount", b"none", b"/mnt", b"tmpfs", 0, None)'),
    call("proc bound elsewhere", 'kernel("mount", b"/proc", b"/mnt", None, 0x1000, None)'),
    call("a proc without masks", 'kernel("mount", b"proc", b"/mnt", b"proc", 0, None)'),
    call("the devices of the host", 'kernel("mount", b"none", b"/mnt", b"devtmpfs", 0, None)'),
    call("the kernel's objects", 'kernel("mount", b"none", b"/mnt", b"sysfs", 0, None)'),
    call("control groups 2", 'kernel("mount", b"none", b"/mnt", b"cgroup2", 0, None)'),
    Attack(
        "a release agent",
        """
for names in (b"pids", b"memory", b"rdma", b"none,name=attack"):
    mounted = kernel("mount", b"none", b"/mnt", b"cgroup", 0, names)
    if mounted == "done": break
print(opened("/mnt/release_agent", os.O_WRONLY) if mounted == "done" else mounted)
""",
    ),
    Attack(
        "an overlay that copies from the host",
        "for name in 'luwm': os.makedirs(f'/mnt/{name}')\n"
        "print(kernel('mount', b'none', b'/mnt/m', b'overlay', 0,"
        " b'lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w'))",
    ),
    call("proc unmounted", 'kernel("umount2", b"/proc", 2)'),
    call(
        "a mask lifted",
        'some(kernel("umount2", one, 2) for one in (b"/proc/kcore", b"/proc/sys", b"/proc"))',
    ),
    call("proc made writable", 'kernel("mount", None, b"/proc", None, 0x1020, None)'),
    call("mounts shared with the host", 'kernel("mount", None, b"/", None, 0x100000, None)'),
    call("a tree opened and cloned", 'kernel("open_tree", -100, b"/proc", 1)'),
    call("a file system opened", 'kernel("fsopen", b"tmpfs", 0)'),
    call("a mount picked", 'kernel("fspick", -100, b"/proc", 0)'),
    call("a mount moved", 'kernel("move_mount", -100, b"/proc", -100, b"/mnt", 0)'),
    call(
        "read-only taken off",
        'kernel("mount_setattr", -100, b"/proc", 0, (ctypes.c_uint64 * 4)(0, 1), 32)',
    ),
    call("the root replaced", 'kernel("pivot_root", b"/mnt", b"/mnt")'),
    call("a root below the root", 'kernel("chroot", b"/mnt")'),
    call(
        "all mounts listed",
        'kernel("listmount", (ctypes.c_uint64 * 3)(24, 2**64 - 1), (ctypes.c_uint64 * 9)(), 9, 0)',
        inside=UNKNOWN,
    ),
    Attack(
        "a file opened by its handle",
        """
handle, mount = ctypes.create_string_buffer(200), ctypes.c_int()
handle[0:4] = (128).to_bytes(4, "little")
raw("name_to_handle_at", -100, b"/mnt", handle, ctypes.byref(mount), 0)
place = os.open("/mnt", os.O_RDONLY)
print(kernel("open_by_handle_at", place, handle, 0))
""",
    ),
]
NAMESPACES = [
    call(f"a {name} namespace by unshare", f'kernel("unshare", NEW_NAMESPACES["{name}"])')
    for name in ("user", "mount", "network", "uts")
]
NAMESPACES += [
    call("a user namespace by clone", "ended(raw('clone', 0x10000000 | 17, 0, 0, 0, 0))"),
    call(
        "a user namespace by clone3",
        "ended(raw('clone3', (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, 17), 64))",
        inside=UNKNOWN,
    ),
    call("the namespaces of another", "kernel('setns', os.pidfd_open(1), 0x20000)"),
    call("a namespace by its file", "kernel('setns', os.open('/proc/self/ns/uts', 0), 0)"),
    call("pid 1's namespaces seen", "tried(os.readlink, '/proc/1/ns/mnt')"),
    call("pid 1's root seen", "tried(os.listdir, '/proc/1/root/')"),
    call("pid 1's directory seen", "tried(os.listdir, '/proc/1/cwd/')"),
]
FILES = [
    call(
        "the group's limits rewritten",
        "some(opened(f'/sys/fs/cgroup/{one}', os.O_WRONLY) for one in ('memory/memory.limit_in_bytes',"
        " 'memory.max', 'cgroup.subtree_control', 'memory/cgroup.procs', 'cgroup.procs'))",
        inside=ABSENT,
    ),
    call(
        "a host's program replaced",
        "opened('/usr/bin/env', os.O_WRONLY)",
        inside=READ_ONLY | REFUSED,
        outside=DONE | {"ETXTBSY"},  # while somebody runs it
    ),
    call(
        "a device planted",
        "tried(lambda: (os.mkdir('/dev/place'), os.rmdir('/dev/place')))",
        inside=READ_ONLY,
    ),
]
ALL = MOUNTS + NAMESPACES + FILES

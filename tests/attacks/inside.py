"""What every attack has at hand: it is put before a script, inside a sandbox and outside for the control.

Each attack ends in one printed word: `done`, or the name of the error that the kernel gave.
"""

import ctypes
import errno
import os
import platform
import socket  # noqa: F401  for the scripts
from pathlib import Path

libc = ctypes.CDLL(None, use_errno=True)
# A place to make files; for a control it is a mount of its own.
Path("/mnt").mkdir(exist_ok=True)

# Of x86-64 and of aarch64; one number where both have the same, which all newer calls do.
NUMBERS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435,),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "fsopen": (430,),
    "fspick": (433,),
    "init_module": (175, 105),
    "io_uring_setup": (425,),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "kcmp": (312, 272),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "listmount": (458,),
    "memfd_secret": (447,),
    "modify_ldt": (154, -1),
    "mount": (165, 40),
    "mount_setattr": (442,),
    "move_mount": (429,),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428,),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438,),
    "pidfd_open": (434,),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}
NEW_NAMESPACES = {"mount": 0x20000, "user": 0x10000000, "network": 0x40000000, "uts": 0x4000000}


def word(number):
    """Return the name of an error, or `done` for none."""
    return errno.errorcode.get(number, str(number)) if number else "done"


def raw(name, *arguments):
    """Make a system call; returns its result, and the error is left for `ctypes.get_errno`."""
    number = NUMBERS[name][-1 if platform.machine() == "aarch64" else 0]
    ctypes.set_errno(0)
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return libc.syscall(ctypes.c_long(number), *words)


def kernel(name, *arguments):
    """Make a system call and tell how it ended."""
    return word(ctypes.get_errno() if raw(name, *arguments) < 0 else 0)


def tried(action, *arguments):
    """Do something and tell how it ended."""
    try:
        action(*arguments)
    except OSError as error:
        return word(error.errno)
    return "done"


def opened(path, flags):
    """Open a path, touch nothing, and tell how it ended."""
    return tried(lambda: os.close(os.open(path, flags | os.O_NONBLOCK)))


def some(words):
    """Tell `done` when one of many attempts was, else how the first of them ended."""
    found = list(words)
    return "done" if "done" in found else found[0]


def in_child(action):
    """Do something in a process of its own, which it may end; tells its word or its signal."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, action().encode())
        os._exit(0)
    os.close(writer)
    said = os.read(reader, 100).decode()
    status = os.waitpid(child, 0)[1]
    return f"signal{os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said


def ended(result):
    """Tell how a process that was made by a raw call of the clone family was made; ends the child."""
    if result == 0:
        os._exit(0)
    if result < 0:
        return word(ctypes.get_errno())
    os.waitpid(result, 0)
    return "done"

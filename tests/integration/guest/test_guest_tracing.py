"""Debuggers inside: what they may do to the guest's own processes, and that nobody gains the agent by them."""

import struct

PYTHON = "/usr/bin/python3"
TRACE = """
import ctypes, errno, os, signal, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.restype = ctypes.c_long
libc.ptrace.argtypes = [ctypes.c_long] * 4
def ptrace(request, pid, address=0, data=0):
    ctypes.set_errno(0)
    result = libc.ptrace(request, pid, address, data)
    return errno.errorcode.get(ctypes.get_errno(), "ok") if result < 0 else "ok"
TRACEME, ATTACH, DETACH, SEIZE = 0, 16, 17, 0x4206
"""


def traced(box, script, **options):
    result = box.run([PYTHON, "-c", TRACE + script], timeout=60, **options)
    return result.code, result.stdout.decode().split()


def test_a_program_is_debugged_and_followed(box):
    """The real ones: gdb stops a program and reads its memory, strace tells its calls."""
    gdb = "gdb -batch -nx -ex 'break main' -ex run -ex 'print 6*7' -ex 'info registers rip pc' /usr/bin/true"
    found = box.run(gdb + " 2>&1", timeout=120)
    assert b"= 42" in found.stdout, found
    assert b"Operation not permitted" not in found.stdout.replace(
        b"Error disabling address space randomization: Operation not permitted", b""
    )
    found = box.run("strace -f -e trace=openat cat /etc/hosts 2>&1 >/dev/null", timeout=60)
    assert b'openat(AT_FDCWD, "/etc/hosts", O_RDONLY' in found.stdout, found


def test_a_running_process_of_ones_own_is_looked_into(box):
    script = """
class Part(ctypes.Structure): _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t)]
told = ctypes.create_string_buffer(b"of the child"); got = ctypes.create_string_buffer(12)
child = os.fork()
if not child: time.sleep(600)
print(ptrace(ATTACH, child)); os.waitpid(child, 0); print(ptrace(DETACH, child))
here, there = Part(ctypes.addressof(got), 12), Part(ctypes.addressof(told), 12)
print(libc.process_vm_readv(child, ctypes.byref(here), 1, ctypes.byref(there), 1, 0), got.raw == b"of the child")
os.kill(child, 9)
"""
    assert traced(box, script) == (0, ["ok", "ok", "12", "True"])


def test_another_users_process_is_not(open_box):
    box = open_box()
    other = box.start([PYTHON, "-c", "import time; print(1, flush=True); time.sleep(600)"])
    kind, payload = box.next_of(other)
    (pid,) = struct.unpack("<I", payload)
    assert kind == 65
    assert box.next_of(other)[0] == 66
    assert traced(box, f"print(ptrace(ATTACH, {pid}))", uid=1000, gid=1000) == (0, ["EPERM"])
    assert traced(box, f"print(ptrace(ATTACH, {pid}), flush=True); os._exit(0)") == (0, ["ok"])


def test_the_agent_is_not_traced_and_traces_nobody(box):
    """A process whose parent is the agent asks to be traced by it: it is ended, and the agent serves on."""
    for request in ("ATTACH", "SEIZE"):
        assert traced(box, f"print(ptrace({request}, 1))") == (0, ["EPERM"])
    script = (
        "print(ptrace(TRACEME, 0), flush=True); os.kill(os.getpid(), signal.SIGSTOP); print('on')"
    )
    assert traced(box, script) == (137, ["ok"])
    script = """
import threading
def one(): print(ptrace(TRACEME, 0), flush=True); libc.raise_ = libc.tgkill(os.getpid(), threading.get_native_id(), 19)
threading.Thread(target=one).start(); time.sleep(600)
"""
    assert traced(box, script) == (137, ["ok"])
    assert box.ask(14)[0] == 75


def test_a_tracer_cannot_hide_the_end_of_a_command(box):
    """The death of a traced process is told to its tracer first; one that never looks would hold it back."""
    holder = box.start(
        [
            PYTHON,
            "-c",
            TRACE + "pid = int(sys.stdin.readline()); print(ptrace(SEIZE, pid), flush=True)\n"
            "time.sleep(600)",
        ],
        flags=1,
    )
    assert box.next_of(holder)[0] == 65
    held = box.start([PYTHON, "-c", "import time; time.sleep(600)"], timeout_ms=1500)
    kind, payload = box.next_of(held)
    assert kind == 65
    box.send(2, holder, b"%d\n" % struct.unpack("<I", payload))
    found = box.result(held, timeout=60)
    assert (found.code, found.flags) == (137, 1)
    held = box.result_after_credit(holder)
    assert (held.code, held.stdout) == (137, b"ok\n")


def test_a_tracer_does_not_get_past_the_filter(box):
    """Its child's harmless call becomes one that is refused, after the filter has let it in: it is judged anew."""
    script = """
import platform
if platform.machine() != "x86_64": print("done", "EPERM"); sys.exit()
class Registers(ctypes.Structure):
    _fields_ = [(n, ctypes.c_ulonglong) for n in (
        "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss fs_base gs_base"
        " ds es fs gs").split()]
SYSCALL, GETREGS, SETREGS = 24, 12, 13
child = os.fork()
if not child:
    ptrace(TRACEME, 0); os.kill(os.getpid(), signal.SIGSTOP)
    ctypes.set_errno(0); result = libc.syscall(39)
    os._exit(100 + ctypes.get_errno() if result < 0 else 0)
os.waitpid(child, 0)
registers = Registers()
changed = ""
while True:
    if ptrace(SYSCALL, child) != "ok": print("refused"); os.kill(child, 9); break
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status): break
    ptrace(GETREGS, child, 0, ctypes.addressof(registers))
    if registers.orig_rax == 39 and not changed:
        registers.orig_rax = 272; registers.rdi = 0x20000  # unshare(CLONE_NEWNS)
        changed = ptrace(SETREGS, child, 0, ctypes.addressof(registers))
print(changed, errno.errorcode[os.WEXITSTATUS(status) - 100])
"""
    assert traced(box, script) == (0, ["ok", "EPERM"])

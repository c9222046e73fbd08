"""The filter of system calls that a cell lives in, as a program for the kernel. Pure.

What a language needs once it runs is allowed, all else is EPERM: there is no call here that makes a
file, a socket, a process or a thread, and no memory that can be executed once the filter stands.
"""

import struct
from collections.abc import Mapping

from handiwork.model.code import Language
from handiwork.model.errors import UnsupportedError

_INSTRUCTION = struct.Struct("<HBBI")
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _GIVE = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_AT, _MACHINE_AT, _FIRST_ARGUMENT_AT, _THIRD_ARGUMENT_AT = 0, 4, 16, 32
_ALLOW, _EPERM, _ENOSYS, _KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
_X32_BIT = 0x40000000
_PROT_EXEC = 4
_THREAD = 0x003D0F00
"""What the C library asks clone for: all is shared, so that it is a thread and no process."""
EXECUTABLE = ("mmap", "mprotect")
"""Calls that can make memory executable; their third argument says so."""

MACHINES: Mapping[str, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""What the kernel calls each, from linux/audit.h."""

NUMBERS: Mapping[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "poll": (7, None),
    "ppoll": (271, 73),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "rt_sigreturn": (15, 139),
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "getrandom": (318, 278),
    "futex": (202, 98),
    "clock_nanosleep": (230, 115),
    "sched_yield": (24, 124),
    "gettid": (186, 178),
    "getpid": (39, 172),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "clone": (56, 220),
    "clone3": (435, 435),
    "rt_sigprocmask": (14, 135),
    "sigaltstack": (131, 132),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
"""Of x86_64 and of aarch64, in the order of MACHINES; None where that machine has no such call."""

_PYTHON_ALONE = ("futex", "clock_nanosleep", "sched_yield", "gettid", "getpid")
_BASH_ALONE = (
    *("epoll_wait", "epoll_pwait"),
    *("clone", "clone3", "rt_sigprocmask", "sigaltstack", "set_robust_list", "rseq"),
)
"""Its interpreter waits with the two, and parses in threads, whose number the cage bounds."""
ALLOWED: Mapping[Language, tuple[str, ...]] = {
    "javascript": tuple(name for name in NUMBERS if name not in _PYTHON_ALONE + _BASH_ALONE),
    "python": tuple(name for name in NUMBERS if name not in _BASH_ALONE),
    "bash": tuple(NUMBERS),
}
"""For each language what its engine does between two frames, most frequent first."""


def program(language: Language, machine: str) -> bytes:
    """Return the filter as an array of struct sock_filter; UnsupportedError for another machine."""
    if machine not in MACHINES:
        raise UnsupportedError(
            f"the isolate tier has no filter for {machine}; it runs on {', '.join(MACHINES)}"
        )
    column = tuple(MACHINES).index(machine)
    found = {name: NUMBERS[name][column] for name in ALLOWED[language]}
    numbers = {name: number for name, number in found.items() if number is not None}
    code = _only_this_machine(machine)
    for name, number in numbers.items():
        code += _decided(name, number)
    return code + _give(_EPERM)


def _instruction(code: int, if_true: int, if_false: int, value: int) -> bytes:
    return _INSTRUCTION.pack(code, if_true, if_false, value)


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, 0, 0, offset)


def _give(verdict: int) -> bytes:
    return _instruction(_GIVE, 0, 0, verdict)


def _only_this_machine(machine: str) -> bytes:
    """Kill who calls as another machine would; what is left in the register is the call's number."""
    code = _load(_MACHINE_AT) + _instruction(_EQUAL, 1, 0, MACHINES[machine]) + _give(_KILL)
    code += _load(_NUMBER_AT)
    if machine == "x86_64":
        code += _instruction(_AT_LEAST, 0, 1, _X32_BIT) + _give(_KILL)
    return code


def _decided(name: str, number: int) -> bytes:
    """Decide one call; others go on."""
    if name in EXECUTABLE:
        return _unless_executable(number)
    if name == "clone":
        return _only_a_thread(number)
    verdict = (
        _ENOSYS if name == "clone3" else _ALLOW
    )  # its flags cannot be seen; clone is used then
    return _instruction(_EQUAL, 0, 1, number) + _give(verdict)


def _only_a_thread(number: int) -> bytes:
    judged = _load(_FIRST_ARGUMENT_AT) + _instruction(_EQUAL, 0, 1, _THREAD)
    judged += _give(_ALLOW) + _give(_EPERM)
    return _instruction(_EQUAL, 0, len(judged) // _INSTRUCTION.size, number) + judged


def _unless_executable(number: int) -> bytes:
    """Decide a call that makes memory: allowed, but not to be executed. Others go on."""
    judged = _load(_THIRD_ARGUMENT_AT) + _instruction(_ANY_BIT, 0, 1, _PROT_EXEC)
    judged += _give(_EPERM) + _give(_ALLOW)
    return _instruction(_EQUAL, 0, len(judged) // _INSTRUCTION.size, number) + judged

"""The filter as the kernel reads it, by a small machine of our own; the kernel itself is asked elsewhere."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import UnsupportedError
from handiwork.sandboxes.isolate import filters

ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000
THREAD = 0x3D0F00
NUMBERS = {
    machine: {name: both[column] for name, both in filters.NUMBERS.items()}
    for column, machine in enumerate(filters.MACHINES)
}


def verdict(program, machine_code, number, arguments=(0,) * 6):
    """What a program says of a call."""
    data = struct.pack("<iIQ6Q", number, machine_code, 0, *arguments)
    code = list(struct.iter_unpack("<HBBI", program))
    at = value = 0
    for _ in range(len(code) + 1):
        operation, if_true, if_false, operand = code[at]
        at += 1
        if operation == 0x20:
            (value,) = struct.unpack_from("<I", data, operand)
        elif operation == 0x06:
            return operand
        else:
            holds = {0x15: value == operand, 0x35: value >= operand, 0x45: bool(value & operand)}
            at += if_true if holds[operation] else if_false
    raise AssertionError("it does not end")


@pytest.mark.parametrize("machine", filters.MACHINES)
@pytest.mark.parametrize("language", filters.ALLOWED)
def test_what_an_engine_needs_is_allowed(machine, language):
    program = filters.program(language, machine)
    for name in filters.ALLOWED[language]:
        number = NUMBERS[machine][name]
        if number is not None:
            first = THREAD if name == "clone" else 0
            said = verdict(program, filters.MACHINES[machine], number, (first, 0, 0, 0, 0, 0))
            assert said == (ENOSYS if name == "clone3" else ALLOW), name


@pytest.mark.parametrize("machine", filters.MACHINES)
@pytest.mark.parametrize("language", filters.ALLOWED)
@given(number=st.integers(0, 0x3FFFFFFF) | st.integers(0, 500))
def test_all_else_is_refused(machine, language, number):
    program = filters.program(language, machine)
    known = {NUMBERS[machine][name]: name for name in filters.ALLOWED[language]}
    special = {"clone": EPERM, "clone3": ENOSYS}  # its argument is 0 here: no thread
    wanted = special.get(known[number], ALLOW) if number in known else EPERM
    assert verdict(program, filters.MACHINES[machine], number) == wanted


@pytest.mark.parametrize("machine", filters.MACHINES)
@given(flags=st.integers(0, 0xFFFFFFFF) | st.sampled_from([THREAD ^ 1 << bit for bit in range(32)]))
def test_no_process_can_be_made(machine, flags):
    program = filters.program("bash", machine)
    number = NUMBERS[machine]["clone"]
    said = verdict(program, filters.MACHINES[machine], number, (flags, 0, 0, 0, 0, 0))
    assert said == (ALLOW if flags == THREAD else EPERM)


@pytest.mark.parametrize("machine", filters.MACHINES)
@pytest.mark.parametrize("name", filters.EXECUTABLE)
@given(protection=st.integers(0, 0xFFFFFFFF))
def test_no_memory_can_be_executed(machine, name, protection):
    program = filters.program("javascript", machine)
    given_to_it = (0, 4096, protection, 0, 0, 0)
    said = verdict(program, filters.MACHINES[machine], NUMBERS[machine][name], given_to_it)
    assert said == (EPERM if protection & 4 else ALLOW)


def test_calls_of_another_machine_kill():
    x86, arm = filters.MACHINES.values()
    assert verdict(filters.program("javascript", "x86_64"), 0x40000003, 0) == KILL  # 32 bits
    assert verdict(filters.program("javascript", "x86_64"), arm, 0) == KILL
    assert verdict(filters.program("javascript", "aarch64"), x86, 63) == KILL
    assert verdict(filters.program("javascript", "x86_64"), x86, 0x40000000 | 1) == KILL  # x32


def test_a_machine_without_a_table_is_refused():
    with pytest.raises(
        UnsupportedError, match=r"no filter for riscv64; it runs on x86_64, aarch64"
    ):
        filters.program("javascript", "riscv64")

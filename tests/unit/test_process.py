"""In children, for none of this can be undone."""

import os
import subprocess
import sys

import pytest

REPORT = """
print(os.getresuid(), os.getresgid(), os.getgroups(), resource.getrlimit(resource.RLIMIT_CORE)[0])
for line in open('/proc/self/status'):
    if line.split(':')[0] in ('CapBnd', 'CapEff', 'NoNewPrivs'): print(line.strip())
"""


def run(code: str) -> str:
    script = "import os, resource\nfrom handiwork import process\n" + code + REPORT
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: drops to another id")
def test_a_dropped_process_has_no_way_back() -> None:
    said = run("process.drop_to(64101); process.harden()")
    assert "(64101, 64101, 64101) (64101, 64101, 64101) [] 0" in said
    assert "CapEff:\t0000000000000000" in said
    with pytest.raises(subprocess.CalledProcessError):
        run("process.drop_to(64101); os.setresuid(0, 0, 0)")


def test_no_set_id_program_helps() -> None:
    assert "NoNewPrivs:\t1" in run("process.harden()")
    assert "NoNewPrivs:\t0" in run("process.harden(may_gain=True)")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: has capabilities to lose")
def test_only_kept_capabilities_can_be_had_again() -> None:
    assert "CapBnd:\t0000000000200001" in run("process.harden(keep_capabilities=(0, 21))")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another id looks")
def test_nobody_of_the_same_id_reads_its_memory() -> None:
    code = "process.drop_to(64101)\n{}\nchild = os.fork()\nif child == 0:\n    os.read(0, 1); os._exit(0)\n"
    look = "print(os.access(f'/proc/{child}/mem', os.R_OK)); os.kill(child, 9); os.wait()\n"
    assert "True" in run(
        code.format("import ctypes; ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)") + look
    )
    assert "False" in run(code.format("process.harden()") + look)

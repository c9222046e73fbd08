"""gdb, strace and py-spy on the guest's own processes, in a sandbox of each tier."""

import shutil
import sys
from pathlib import Path

import pytest
import pytest_asyncio

from attacks.world import TIERS, World, opened, shell
from handiwork.model.sandbox import ExecResult
from handiwork.sandboxes.images import sample

PARAMS = [
    name if tier.shares_kernel else pytest.param(name, marks=[pytest.mark.slow, *tier.marks])
    for name, tier in TIERS.items()
]
PY_SPY = "/workspace/py-spy"
READS_MEMORY = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
class Part(ctypes.Structure): _fields_ = [("at", ctypes.c_void_p), ("size", ctypes.c_size_t)]
mine, got = ctypes.create_string_buffer(b"8 bytes!"), ctypes.create_string_buffer(8)
here, there = Part(ctypes.addressof(got), 8), Part(ctypes.addressof(mine), 8)
read = libc.process_vm_readv(os.getpid(), ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
print("yes" if read == 8 else errno.errorcode[ctypes.get_errno()])
"""
WAITING = """
rm -f /tmp/begun
python3 -c 'import time
def waiting_for_nothing():
    print(flush=True)
    time.sleep(600)
waiting_for_nothing()' >/tmp/begun &
pid=$!
while [ ! -s /tmp/begun ]; do sleep 0.05; done
"""
"""A Python that waits in a function of its own, as $pid."""
pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PARAMS)
async def world(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "PROGRAMS", (*sample.PROGRAMS, "gdb", "strace"))  # in machines too
        async with opened(TIERS[request.param], directory) as found:
            yield found


async def run(world: World, script: str) -> ExecResult:
    return await world.attacker.exec(shell(script, merge_stderr=True))


async def test_gdb_runs_a_program_and_looks_into_one_that_runs(world):
    """In gVisor a debugger looks into what it started itself, and attaches to nothing else."""
    ran = await run(world, "gdb -batch -nx -ex run -ex 'print 6*7' /usr/bin/true")
    assert b"exited normally" in ran.stdout, ran
    assert b"= 42" in ran.stdout
    looks = "gdb -batch -nx -p $pid -ex 'info registers' -ex detach; kill -0 $pid && kill $pid"
    looked = await run(world, WAITING + looks)
    assert looked.exit_code == 0, looked
    if world.driver.tier == "gvisor":
        assert b"Operation not permitted" in looked.stdout, looked
    else:
        assert b"rip " in looked.stdout or b"pc " in looked.stdout, looked


async def test_strace_tells_the_calls(world):
    """In gVisor it is refused: its filter judges a call before the tracer may change it."""
    ran = await run(world, "strace -f -e trace=openat cat /etc/hosts 2>&1 >/dev/null")
    if world.driver.tier != "gvisor":
        assert b'openat(AT_FDCWD, "/etc/hosts", O_RDONLY' in ran.stdout, ran
    else:
        assert b"Operation not permitted" in ran.stdout, ran


async def test_py_spy_tells_where_a_python_is(world):
    """It needs `process_vm_readv`, which a gVisor of 2022 has not."""
    program = shutil.which("py-spy", path=str(Path(sys.executable).parent))
    assert program is not None, "no py-spy beside this Python: ./run test installs it"
    await world.attacker.files.write(PY_SPY, Path(program).read_bytes(), mode=0o755)
    told = await run(world, f"{WAITING}{PY_SPY} dump --pid $pid; kill $pid")
    (can,) = (await run(world, f"python3 -c '{READS_MEMORY}'")).stdout.decode().split()
    if can == "yes":
        assert b"waiting_for_nothing" in told.stdout, told
    else:
        assert world.driver.tier == "gvisor"
        assert can == "ENOSYS"
        assert b"waiting_for_nothing" not in told.stdout

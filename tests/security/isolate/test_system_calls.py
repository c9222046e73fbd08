"""Every system call there is, made by native code in the cage of each engine: what is not needed is refused."""

import asyncio
import errno
import json
import os
import platform
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from handiwork.sandboxes.isolate import filters
from handiwork.sandboxes.isolate.zygotes import PROGRAM, Shape, Zygote

CHILD = Path(__file__).parents[2] / "caged_child.py"
ID = (1 << 29) + 77 if os.geteuid() == 0 else 0
COLUMN = list(filters.MACHINES).index(platform.machine())
LAST = 470
"""Above the number of every call of any kernel of today."""
CONTROLS = {
    # name: (x86_64, aarch64), arguments
    "socket": ((41, 198), (socket.AF_UNIX, socket.SOCK_STREAM, 0, 0, 0, 0)),
    "openat": ((257, 56), (-100, "room", 0, 0, 0, 0)),  # an empty path: ENOENT, not EPERM
    "dup": ((32, 23), (3, 0, 0, 0, 0, 0)),
    "getuid": ((102, 174), (0,) * 6),
    "memfd_create": ((319, 279), ("room", 0, 0, 0, 0, 0)),
    "eventfd2": ((290, 19), (0,) * 6),
    "umask": ((95, 166), (0o22, 0, 0, 0, 0, 0)),
}


THREADS = {"bash": 8}
"""What a language's cells may have; others none."""


def program_of(language, place):
    path = place / "caged"
    most = THREADS.get(language, 0)
    start = f"exec {sys.executable} -I {CHILD} {PROGRAM}_python"
    path.write_text(f'#!/bin/sh\nexport THREADS={most}\n{start} "$@"\n')
    path.chmod(0o755)
    return path


class Caller:
    """One caged process, or one without a cage."""

    def __init__(self, end):
        self._end = end

    async def __call__(self, *calls):
        loop = asyncio.get_running_loop()
        text = json.dumps(calls).encode()
        await loop.sock_sendall(self._end, struct.pack("<I", len(text)) + text)
        (length,) = struct.unpack("<I", await self._read(4))
        return json.loads(await self._read(length))

    async def _read(self, count):
        data = b""
        while len(data) < count:
            more = await asyncio.get_running_loop().sock_recv(self._end, count - len(data))
            if not more:
                raise EOFError
            data += more
        return data


@pytest.fixture(params=filters.ALLOWED)
async def caged(request, tmp_path, monkeypatch):
    """A cell with the filter of one language, whose program is ours."""
    program = program_of(request.param, tmp_path)
    monkeypatch.setattr("handiwork.sandboxes.isolate.zygotes._program", lambda _, path: [str(path)])
    async with await Zygote.start(
        Shape(language=request.param), user_id=ID, program=program
    ) as zygote:
        ends = []
        number, end = await zygote.fork(ends.append)
        caller = Caller(end)
        caller.zygote, caller.number, caller.ends, caller.language = (
            zygote,
            number,
            ends,
            request.param,
        )
        with end:
            yield caller


@pytest.fixture
def bare_end():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        with theirs:
            argv = [sys.executable, "-I", CHILD, f"{PROGRAM}_python", "bare", str(theirs.fileno())]
            process = subprocess.Popen(argv, pass_fds=[theirs.fileno()])
        try:
            yield ours
        finally:
            process.kill()
            process.wait()


@pytest.fixture
async def bare(bare_end):
    return Caller(bare_end)


THREAD = 0x3D0F00
"""The flags of a thread. Others are those of a process."""


@pytest.mark.parametrize("flags", [0, 17, THREAD & ~0x10000, THREAD | 0x10000000, THREAD | 17])
async def test_nothing_that_is_no_thread_is_cloned(caged, flags):
    number = filters.NUMBERS["clone"][COLUMN]
    assert await caged([number, flags, 0, 0, 0, 0, 0]) == [-errno.EPERM]


async def test_clone3_is_not_there(caged):
    wanted = -errno.ENOSYS if caged.language == "bash" else -errno.EPERM
    assert await caged([filters.NUMBERS["clone3"][COLUMN], 0, 0, 0, 0, 0, 0]) == [wanted]


async def test_threads_are_bounded_in_each_cell(caged):
    """As many in a second cell, though the first has all of its own: they are not of one account."""
    bound = THREADS.get(caged.language, 0)
    assert await caged(["threads"]) == [bound]
    ends = []
    _, end = await caged.zygote.fork(ends.append)
    with end:
        assert await Caller(end)(["threads"]) == [bound]


async def test_without_a_cage_there_are_more(bare):
    assert (await bare([filters.NUMBERS["clone3"][COLUMN], 0, 0, 0, 0, 0, 0]))[0] != -errno.EPERM


PROBES = {"x86_64": {335, 336}}.get(platform.machine(), set())
"""uretprobe and uprobe, which Linux takes past every filter: without a probe of root's they do nothing."""


def refused_by(language):
    allowed = {filters.NUMBERS[name][COLUMN] for name in filters.ALLOWED[language]}
    return [number for number in range(LAST) if number not in allowed | PROBES]


async def test_all_that_no_engine_needs_is_refused(caged):
    numbers = refused_by(caged.language)
    gave = await caged(*([number, 0, 0, 0, 0, 0, 0] for number in numbers))
    assert {
        number: said for number, said in zip(numbers, gave, strict=True) if said != -errno.EPERM
    } == {}
    assert len(numbers) > 435


async def test_without_a_cage_they_are_not(bare):
    calls = [[numbers[COLUMN], *arguments] for numbers, arguments in CONTROLS.values()]
    gave = await bare(*calls)
    assert [name for name, said in zip(CONTROLS, gave, strict=True) if said == -errno.EPERM] == []


async def test_in_the_cage_the_same_are(caged):
    calls = [[numbers[COLUMN], *arguments] for numbers, arguments in CONTROLS.values()]
    assert set(await caged(*calls)) == {-errno.EPERM}


async def test_no_memory_is_made_executable(caged, bare):
    anonymous, page = 0x22, 4096
    mmap, mprotect = (filters.NUMBERS[name][COLUMN] for name in filters.EXECUTABLE)
    for protection in (4, 5, 7):
        call = [mmap, 0, page, protection, anonymous, -1, 0]
        assert await caged(call) == [-errno.EPERM]
        assert (await bare(call))[0] > 0
    (place,) = await caged([mmap, 0, page, 3, anonymous, -1, 0])
    assert await caged([mprotect, place, page, 5, 0, 0, 0]) == [-errno.EPERM]
    (place,) = await bare([mmap, 0, page, 3, anonymous, -1, 0])
    assert await bare([mprotect, place, page, 5, 0, 0, 0]) == [0]


@pytest.mark.skipif(
    platform.machine() != "x86_64", reason="only x86-64 has a second table of calls"
)
async def test_the_calls_of_32_bits_kill(caged):
    with pytest.raises(EOFError):
        await caged([0x40000000 | 39, 0, 0, 0, 0, 0, 0])
    for _ in range(1000):
        if caged.ends:
            break
        await asyncio.sleep(0.01)
    assert caged.ends[0].code == 128 + signal.SIGSYS


NONE = ("Max core file size", "Max file size", "Max locked memory")


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.root
async def test_it_is_somebody_and_somewhere_else(caged):
    await caged()
    (first,) = children(caged.zygote._process.pid)
    (cell,) = children(first)
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{cell}/status").read_text().splitlines()
    )
    assert status["Uid"].split() == status["Gid"].split() == [str(ID)] * 4
    assert status["Groups"].strip() == ""
    assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {
        "0" * 16
    }
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    for kind in ("net", "mnt", "ipc", "uts", "pid", "cgroup"):
        its, ours = (Path(f"/proc/{whose}/ns/{kind}").readlink() for whose in (cell, "self"))
        assert its != ours, kind
    assert [*Path(f"/proc/{cell}/root").iterdir()] == []
    assert [one.name for one in Path(f"/proc/{cell}/fd").iterdir()] == ["3"]
    limits = Path(f"/proc/{cell}/limits").read_text()
    most = THREADS.get(caged.language, -1) + 1
    wanted = {"Max processes": most, **dict.fromkeys(NONE, 0)}
    for name, value in wanted.items():
        (line,) = [line for line in limits.splitlines() if line.startswith(name)]
        assert line[len("Max realtime timeout     ") :].split()[:2] == [str(value)] * 2, line

"""Checks of what is told of processes: who runs, what they use, where they listen."""

import asyncio

from handiwork.model.sandbox import ExecRequest, ProcessInfo, ProcessTable
from handiwork.sandboxes.protocol import Sandbox
from handiwork.sandboxes.selfcheck.connections import serving
from handiwork.sandboxes.selfcheck.table import Bench, Refuted, check, expect, hold

PATIENCE_SECONDS = 30.0
_BUSY = (
    "import time\nkept = bytearray(b'x' * (64 << 20)); end = time.process_time() + 0.3\n"
    "while time.process_time() < end: pass\nprint('ready', flush=True); time.sleep(1000)\n"
)


@check("shell")
async def _processes_are_told_with_what_they_use(bench: Bench) -> None:
    box = await bench.box()
    process = await box.start(ExecRequest(argv=("python3", "-c", _BUSY, "a b"), cwd="/"))
    try:
        expect(await anext(process.output()), ("stdout", b"ready\n"), "output")
        found = _one((await box.ps()).processes, process.pid)
        hold(found.command.endswith(" a b"), f"its command is {found.command!r}")
        hold(found.memory_kib >= 64 << 10, f"it has 64 MiB, and {found.memory_kib} KiB are told")
        hold(found.cpu_seconds >= 0.2, f"it used 0.3 s, and {found.cpu_seconds} are told")
        hold(found.age_seconds > 0, "it has no age")
        expect((found.uid, found.threads >= 1), (0, True), "user and threads")
    finally:
        await process.signal(9)
    for one in (await box.ps()).processes:
        hold(one.pid > 1, "the agent is told as a process of the guest")


@check("shell")
async def _descendants_bear_the_tree_of_their_command(bench: Bench) -> None:
    box = await bench.box()
    script = "(setsid sleep 71.5 &); sleep 71.5 & echo $!; wait"
    process = await box.start(ExecRequest(argv=("sh", "-c", script), cwd="/"))
    try:
        await anext(process.output())
        table = await _until_two_sleep(box)
        own = _one(table.processes, process.pid)
        hold(own.tree != 0, "a command has no tree")
        trees = {one.tree for one in table.processes if one.command == "sleep 71.5"}
        expect(trees, {own.tree}, "trees of its descendants")
    finally:
        await process.signal(9)


@check("shell")
async def _who_listens_is_told(bench: Bench) -> None:
    async with serving(bench, "c.recv(1)\n", "127.0.0.1") as (box, port):
        table = await box.ps()
        (found,) = [one for one in table.listeners if one.port == port]
        expect((found.address, found.uid), ("127.0.0.1", 0), "address and user")
        hold("python3" in _one(table.processes, found.pid).command, "it is somebody else's")
    agents = {15001, 15053} & {one.port for one in (await box.ps()).listeners}
    expect(agents, set(), "ports of the agent")


async def _until_two_sleep(box: Sandbox) -> ProcessTable:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            table = await box.ps()
            if sum(one.command == "sleep 71.5" for one in table.processes) == 2:
                return table
            await asyncio.sleep(0.05)


def _one(processes: tuple[ProcessInfo, ...], pid: int) -> ProcessInfo:
    for process in processes:
        if process.pid == pid:
            return process
    raise Refuted(f"process {pid} is not told of")

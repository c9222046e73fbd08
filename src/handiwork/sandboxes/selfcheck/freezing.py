"""Checks of `frozen`: nobody inside runs meanwhile, and all go on after as they were before."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.protocol import Process
from handiwork.sandboxes.selfcheck.table import Bench, Refuted, check, expect, hold

SILENCE_SECONDS = 0.3
PATIENCE_SECONDS = 20.0
TICKS = "while :; do echo tick; sleep 0.01; done"
FORKS = "while :; do (echo tick) & wait; done"


@check("life")
async def _a_frozen_sandbox_works_after(bench: Bench) -> None:
    box = await bench.box()
    for _ in range(2):
        async with box.frozen():
            pass
        hold(await bench.works(box), "it does nothing once it was thawed")


@check("shell")
async def _frozen_processes_do_nothing(bench: Bench) -> None:
    for script in (TICKS, FORKS):
        async with _ticking(bench, script) as ticks:
            async with (await bench.box()).frozen():
                await ticks.silence()
            await ticks.more()


@check("shell")
async def _calls_wait_until_a_sandbox_is_thawed(bench: Bench) -> None:
    box = await bench.box()
    async with asyncio.TaskGroup() as group:
        async with box.frozen():
            call = group.create_task(bench.run("true"))
            await asyncio.sleep(SILENCE_SECONDS)
            hold(not call.done(), "a command ran in a frozen sandbox")
        expect((await call).exit_code, 0, "exit code")


@check("shell")
async def _who_was_stopped_stays_stopped(bench: Bench) -> None:
    started = await bench.shell("sleep 1000 >/dev/null 2>&1 & echo $!")
    pid = started.stdout.decode().strip()
    # By another command: a stopped process whose own shell ends may be hung up by the kernel.
    await bench.shell(f"kill -STOP {pid}")
    state = f"cut -d' ' -f3 /proc/{pid}/stat"
    expect((await bench.shell(state)).stdout, b"T\n", "state before")
    async with (await bench.box()).frozen():
        pass
    expect((await bench.shell(f"sleep 0.2; {state}")).stdout, b"T\n", "state after")
    expect((await bench.shell(f"kill -CONT {pid}; kill {pid}")).exit_code, 0, "exit code of kill")


class _Ticks:
    """A command that writes all the time, and when it last did."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._came = asyncio.Event()

    async def read(self) -> None:
        """Note each piece of output."""
        async for _ in self._process.output():
            self._came.set()

    async def more(self) -> None:
        """Wait for one more piece of output."""
        self._came.clear()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._came.wait()
        except TimeoutError:
            raise Refuted("a command that was thawed did not go on") from None

    async def silence(self) -> None:
        """Wait until nothing comes for a while; what was under way may still come first."""
        for _ in range(round(PATIENCE_SECONDS / SILENCE_SECONDS)):
            self._came.clear()
            await asyncio.sleep(SILENCE_SECONDS)
            if not self._came.is_set():
                return
        raise Refuted("a command in a frozen sandbox went on")


@asynccontextmanager
async def _ticking(bench: Bench, script: str) -> AsyncIterator[_Ticks]:
    request = ExecRequest(argv=("sh", "-c", script), cwd="/", output_limit_bytes=0)
    process = await (await bench.box()).start(request)
    ticks = _Ticks(process)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(ticks.read())
        await ticks.more()
        try:
            yield ticks
        finally:
            await process.signal(9)
            await reading

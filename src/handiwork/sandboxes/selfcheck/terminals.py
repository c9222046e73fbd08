"""Checks of terminals: size, raw bytes both ways, signals, end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from handiwork.model.sandbox import ExecRequest, TerminalSize
from handiwork.sandboxes.protocol import Terminal
from handiwork.sandboxes.selfcheck.table import Bench, Refuted, check, expect, hold

PATIENCE_SECONDS = 20.0
SIZE = TerminalSize(columns=101, rows=33)


@check("shell")
async def _a_terminal_has_its_size_and_can_be_resized(bench: Bench) -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 0.05; done"
    async with _open(bench, script) as screen:
        await screen.until(b"33 101")
        await screen.terminal.resize(TerminalSize(columns=40, rows=12))
        await screen.until(b"12 40")


@check("shell")
async def _a_terminal_carries_raw_bytes(bench: Bench) -> None:
    script = "stty raw -echo; echo ready; exec cat"
    data = bytes(range(256)) * 8
    async with _open(bench, script) as screen:
        await screen.until(b"ready")
        await screen.terminal.write(data)
        await screen.until(data)


@check("shell")
async def _a_terminal_is_controlled_and_interrupted(bench: Bench) -> None:
    script = "trap 'echo interrupted; exit 5' INT; tty; while :; do sleep 0.05; done"
    async with _open(bench, script) as screen:
        await screen.until(b"/dev/pts/")
        await screen.terminal.write(b"\x03")
        await screen.until(b"interrupted")
        expect((await screen.terminal.wait()).exit_code, 5, "exit code")


@check("shell")
async def _a_terminal_takes_a_signal(bench: Bench) -> None:
    async with _open(bench, "echo ready; sleep 1000") as screen:
        await screen.until(b"ready")
        await screen.terminal.signal(15)
        expect((await screen.terminal.wait()).exit_code, 128 + 15, "exit code")


class _Screen:
    """What a terminal has shown since it was last looked at."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self._shown = b""
        self._more = asyncio.Event()
        self._ended = False

    async def read(self) -> None:
        """Keep what comes."""
        async for stream, data in self.terminal.output():
            hold(stream == "stdout", "a terminal wrote to two streams")
            self._shown += data
            self._more.set()
        self._ended = True
        self._more.set()

    async def until(self, wanted: bytes) -> None:
        """Wait until it shows this."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while wanted not in self._shown and not self._ended:
                    self._more.clear()
                    await self._more.wait()
        except TimeoutError:
            pass
        before, found, after = self._shown.partition(wanted)
        if not found:
            raise Refuted(f"the terminal shows {before[-200:]!r}, not {wanted[-60:]!r}")
        self._shown = after


@asynccontextmanager
async def _open(bench: Bench, script: str) -> AsyncIterator[_Screen]:
    request = ExecRequest(argv=("sh", "-c", script), cwd="/", output_limit_bytes=0)
    terminal = await (await bench.box()).terminal(request, SIZE)
    screen = _Screen(terminal)
    async with asyncio.TaskGroup() as group:
        reading = group.create_task(screen.read())
        try:
            yield screen
        finally:
            await terminal.signal(9)
            await reading

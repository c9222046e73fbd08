"""Our own terminal, joined to one in a sandbox: raw while it lasts, resized with ours."""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence

from handiwork.client.sandboxes import Sandbox
from handiwork.client.terminal import Terminal
from handiwork.model.sandbox import MAX_TERMINAL_CELLS, ExecResult

INPUT_BYTES = 4096
END_OF_INPUT = b"\x04"
"""What a terminal takes for the end of its input."""


async def run_here(box: Sandbox, command: Sequence[str], *, cwd: str, user: str) -> ExecResult:
    """Run a command on a terminal of the sandbox, shown and typed on ours, to its end."""
    columns, rows = _size()
    async with (
        box.terminal(command, columns=columns, rows=rows, cwd=cwd, user=user) as terminal,
        asyncio.TaskGroup() as group,
    ):
        with _raw(sys.stdin.fileno()):
            others = [group.create_task(_type(terminal)), group.create_task(_follow_size(terminal))]
            async for data in terminal.output():
                await asyncio.to_thread(_show, data)
        for task in others:
            task.cancel()
        return await terminal.wait()


def _size() -> tuple[int, int]:
    size = shutil.get_terminal_size()
    return tuple(max(1, min(n, MAX_TERMINAL_CELLS)) for n in size)  # type: ignore[return-value]  # two in, two out


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.flush()


async def _type(terminal: Terminal) -> None:
    """Send what is typed, each piece when the one before was taken."""
    loop, source = asyncio.get_running_loop(), sys.stdin.fileno()
    while True:
        ready: asyncio.Future[None] = loop.create_future()
        try:
            loop.add_reader(source, _tell, ready)
        except PermissionError:  # a plain file: it never makes anybody wait
            ready.set_result(None)
        try:
            await ready
        finally:
            loop.remove_reader(source)
        data = os.read(source, INPUT_BYTES)
        await terminal.write(data or END_OF_INPUT)
        if not data:
            return


def _tell(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


async def _follow_size(terminal: Terminal) -> None:
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            await terminal.resize(*_size())
    finally:
        loop.remove_signal_handler(signal.SIGWINCH)


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Let every key through as it is typed; nothing happens where there is no terminal."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    tty.setraw(descriptor)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)

"""A tier that does not freeze, or not thaw, is found out."""

import asyncio
import contextlib
from collections import deque

from handiwork.model.sandbox import ExecResult
from handiwork.sandboxes.selfcheck import freezing, selfcheck
from handiwork.testing.sandbox import FakeDriver, FakeSandbox

CHECKED = (
    "a frozen sandbox works after",
    "frozen processes do nothing",
    "calls wait until a sandbox is thawed",
    "who was stopped stays stopped",
)


class Ticking:
    """A process that ticks until it is killed, even in a frozen sandbox."""

    def __init__(self):
        self.killed = False

    async def output(self):
        while not self.killed:
            await asyncio.sleep(0.005)
            yield "stdout", b"tick\n"

    async def signal(self, number):
        self.killed = True


async def _start(self, request, *, stdin=False):
    return Ticking()


@contextlib.asynccontextmanager
async def _breaks(self):
    yield
    self.commands.clear()


async def test_processes_and_calls_that_go_on_are_found_out(monkeypatch):
    monkeypatch.setattr(freezing, "SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(freezing, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(FakeSandbox, "start", _start)
    answers = deque([b"17\n", b"T\n", b"R\n"])
    shell = lambda _: ExecResult(exit_code=0, stdout=answers.popleft(), stderr=b"")  # noqa: E731
    commands = {**FakeDriver().commands, "sh": shell}
    found = [made async for made in selfcheck(FakeDriver(commands), only=CHECKED)]
    assert [made.name for made in found if not made.ok] == list(CHECKED[1:])


async def test_a_sandbox_that_breaks_is_found_out(monkeypatch):
    monkeypatch.setattr(FakeSandbox, "frozen", _breaks)
    found = [made async for made in selfcheck(FakeDriver(), only=CHECKED[:1])]
    assert [made.ok for made in found] == [False]

"""What tools keep in a sandbox: the same for the same one, nothing of another, no more than a limit."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from handiwork.sandboxes.protocol import Sandbox
from handiwork.tools import state as module
from handiwork.tools.state import ToolState

ONE, TWO = (cast("Sandbox", object()) for _ in range(2))
LIMITS: dict[str, Any] = {"spool_bytes": 1 << 20, "limit": 3}


async def test_each_thread_has_a_shell_for_as_long_as_its_sandbox_lives():
    state = ToolState()
    first = await state.shell("", ONE)
    assert await state.shell("", ONE) is first
    assert await state.shell("sthr_1", ONE) is not first
    assert (await state.shell("", TWO)).sandbox is TWO
    assert await state.shell("", ONE) is not first


async def test_of_too_many_the_one_that_was_idle_longest_goes(monkeypatch: pytest.MonkeyPatch):
    state = ToolState()
    busy, old, used = [await state.shell(name, ONE) for name in ("busy", "old", "used")]
    monkeypatch.setattr(module, "MAX_SHELLS", 2)
    busy.runs = True
    assert await state.shell("used", ONE) is used
    await state.shell("new", ONE)
    assert await state.shell("busy", ONE) is busy
    assert await state.shell("used", ONE) is used
    assert await state.shell("old", ONE) is not old


async def test_shells_that_run_nothing_wait():
    state = ToolState()
    shell = await state.shell("", ONE)
    assert state.waiting == 0  # it has no process yet
    process = SimpleNamespace(has_ended=False)
    shell._live = cast("Any", SimpleNamespace(process=process))
    assert state.waiting == 1
    shell.runs = True
    assert state.waiting == 0
    shell.runs, process.has_ended = False, True
    assert state.waiting == 0


def test_the_jobs_are_those_of_the_sandbox():
    state = ToolState()
    first = state.jobs(ONE, **LIMITS)
    assert state.jobs(ONE, **LIMITS) is first
    assert state.jobs(TWO, **LIMITS) is not first

"""What tools keep in a sandbox: the same for the same one, nothing of another."""

from typing import Any, cast

from handiwork.sandboxes.protocol import Sandbox
from handiwork.tools.state import ToolState

ONE, TWO = (cast("Sandbox", object()) for _ in range(2))
LIMITS: dict[str, Any] = {"spool_bytes": 1 << 20, "limit": 3}


def test_each_thread_has_a_shell_for_as_long_as_its_sandbox_lives():
    state = ToolState()
    first = state.shell("", ONE)
    assert state.shell("", ONE) is first
    assert state.shell("sthr_1", ONE) is not first
    assert state.shell("", TWO) is not first
    assert state.shell("", TWO).sandbox is TWO


def test_the_jobs_are_those_of_the_sandbox():
    state = ToolState()
    first = state.jobs(ONE, **LIMITS)
    assert state.jobs(ONE, **LIMITS) is first
    assert state.jobs(TWO, **LIMITS) is not first

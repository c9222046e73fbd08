"""How the demo follows a turn; the whole play is run by `tests/integration/test_demo.py`."""

import io
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest
from rich.console import Console

from handiwork.cli.demo import play
from handiwork.cli.demo.claims import ClaimError, Step
from handiwork.cli.demo.narrator import Narrator
from handiwork.model.run import RunEvent

CALL = RunEvent(kind="agent.tool_use", id="t1", tool="bash", input={"command": "true"})
RESULT = RunEvent(kind="user.tool_result", id="r1", tool_use_id="t1", text="done", is_error=True)
WAITS = RunEvent(kind="session.status_idle", id="i1", stop_reason="requires_action")
ENDS = RunEvent(kind="session.status_idle", id="i2", stop_reason="end_turn")


async def follow(*happenings: RunEvent) -> tuple[list[Step], str]:
    page = io.StringIO()

    async def stream() -> AsyncIterator[RunEvent]:
        for happening in happenings:
            yield happening

    steps = await play._steps(stream(), Narrator(Console(file=page, width=120)))
    return steps, page.getvalue()


async def test_calls_and_results_become_steps() -> None:
    said = RunEvent(kind="agent.message", id="m1", text="I look")
    steps, page = await follow(said, CALL, WAITS, RESULT, ENDS, CALL)
    assert steps == [Step(tool="bash", argument="true", output="done", is_error=True)]
    assert [line.split()[0] for line in page.splitlines()] == ["agent:", "→", "done"]


@pytest.mark.parametrize(
    "happenings",
    [
        (CALL, RunEvent(kind="session.error", id="e1", text="the script failed")),
        (CALL, RESULT),
        (),
    ],
)
async def test_a_turn_that_does_not_end_well(happenings: tuple[RunEvent, ...]) -> None:
    with pytest.raises(ClaimError):
        await follow(*happenings)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"command": "ls"}, "ls"),
        ({"file_path": "/a", "content": "x"}, "/a"),
        ({"pattern": "def"}, "def"),
        ({}, ""),
    ],
)
def test_the_argument_that_is_shown(given: dict[str, str], shown: str) -> None:
    assert play._argument(RunEvent(kind="agent.tool_use", id="t", input=given)) == shown


def test_processes_of_a_sandbox_are_found_by_its_id() -> None:
    sandbox_id = "sbx_notanotherprocess"
    code = "import sys; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, sandbox_id], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert play.pids_of(sandbox_id) == [process.pid]
    assert play.pids_of(sandbox_id) == []

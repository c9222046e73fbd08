"""`kill -9` of a whole control plane: its successor goes on with the same work items and leases."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import control_plane_process
from brain_process import BrainProcess, call
from handiwork.sessions.calls import CUT_SHORT
from outer_brain import config, items, message, results, say, started, until


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[BrainProcess]:
    """A brain that outlives the control plane, as a real one does."""
    with BrainProcess.start(tmp_path / "brain.db") as process:
        yield process


@pytest.mark.parametrize("mid_call", [True, False], ids=["in a call", "idle but open"])
def test_the_successor_goes_on_with_the_same_work_item(
    tmp_path: Path, brain: BrainProcess, mid_call: bool
) -> None:
    pause = "sleep 30" if mid_call else "true"
    settings = config(brain, tmp_path)
    first = control_plane_process.start(tmp_path / "host", config=settings)
    try:
        session_id = say(
            brain,
            call("bash", command=f"echo run >> count; {pause}"),
            call("bash", command="cat count"),
        )
        until(lambda: started(first))
        if not mid_call:
            results(brain, session_id, 2)
    finally:
        first.kill()
    [before] = items(brain)
    with control_plane_process.running(tmp_path / "host", config=settings):
        if mid_call:
            assert results(brain, session_id, 2) == [CUT_SHORT, "run"]
        else:
            message(brain, session_id)
            assert results(brain, session_id, 4)[3] == "run\nrun"
        [after] = items(brain)
        assert (after["id"], after["epoch"], after["state"]) == (before["id"], 0, "active")
        assert after["acknowledged_at"] == before["acknowledged_at"]

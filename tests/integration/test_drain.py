"""SIGTERM of a whole control plane in the middle of calls, and its successor: no work is lost."""

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import control_plane_process
from brain_process import BrainProcess, call
from handiwork.sessions.calls import CUT_SHORT
from outer_brain import config, items, results, say, started, until

SESSIONS = 3


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[BrainProcess]:
    """A brain that outlives the control plane, as a real one does."""
    with BrainProcess.start(tmp_path / "brain.db") as process:
        yield process


def ledger(data: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{data / 'handiwork.db'}?mode=ro", uri=True)) as database:
        return [state for (state,) in database.execute("select state from tool_calls")]


@pytest.mark.parametrize("grace", [30, 1], ids=["calls may end", "calls outlive the grace"])
def test_a_rolling_restart_loses_nothing(tmp_path: Path, brain: BrainProcess, grace: int) -> None:
    settings = config(brain, tmp_path, drain_seconds=grace)
    pause = 4 if grace == 30 else 60
    first = control_plane_process.start(tmp_path / "host", config=settings)
    try:
        sessions = [
            say(
                brain,
                call("bash", command=f"echo run >> count; sleep {pause}; echo whole"),
                call("bash", command="cat count"),
            )
            for _ in range(SESSIONS)
        ]
        until(lambda: started(first, SESSIONS))
        assert first.stop() == 0
    finally:
        if first.process.poll() is None:
            first.kill()
    told = [results(brain, session_id, 0) for session_id in sessions]
    assert told == [["whole"] if grace == 30 else []] * SESSIONS
    assert set(ledger(first.data)) == ({"posted"} if grace == 30 else {"started"})
    assert {item["state"] for item in items(brain)} == {"stopped", "queued"}
    with control_plane_process.running(tmp_path / "host", config=settings):
        for session_id in sessions:
            before = "whole" if grace == 30 else CUT_SHORT
            assert results(brain, session_id, 2) == [before, "run"]


def test_a_second_signal_cuts_the_grace(tmp_path: Path, brain: BrainProcess) -> None:
    settings = config(brain, tmp_path, drain_seconds=600)
    plane = control_plane_process.start(tmp_path / "host", config=settings)
    try:
        say(brain, call("bash", command="echo run >> count; sleep 600"))
        until(lambda: started(plane))
        plane.process.send_signal(signal.SIGTERM)
        until(lambda: b"a second signal" in plane.log.read_bytes())
        assert plane.process.poll() is None
        assert plane.stop() == 0
    finally:
        if plane.process.poll() is None:
            plane.kill()
    assert ledger(plane.data) == ["started"]

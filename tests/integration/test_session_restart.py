"""kill -9 of the engine and its restart: nothing runs twice, nothing that was stored is lost."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path

import anthropic
import pytest

import engine
from brain_process import BrainProcess, call
from handiwork.sessions.calls import CUT_SHORT
from session_user import SECONDS, User, reach
from uppers import written

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[BrainProcess]:
    with BrainProcess.start(tmp_path / "brain.db") as process:
        yield process


@pytest.fixture
async def client(brain: BrainProcess) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        yield client


def _engine_process(data: Path, brain: BrainProcess) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, engine.__file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    told = {"data": str(data), "brain": reach(brain), "lease_seconds": 3}
    process.stdin.write(json.dumps(told).encode() + b"\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"ready\n"
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    for pipe in (process.stdin, process.stdout):
        pipe.close()


async def _until(held: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        if held():
            return
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def _counted(data: Path) -> bool:
    return bool(written(data, "workspace/count"))


def _ledger(data: Path) -> list[str]:
    with closing(sqlite3.connect(f"file:{data / 'handiwork.db'}?mode=ro", uri=True)) as database:
        return [state for (state,) in database.execute("select state from tool_calls")]


async def test_a_call_that_was_running_is_answered_and_not_run_again(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    user = await User.begin(
        client,
        brain,
        call("bash", command="echo run >> count; sleep 8"),
        call("bash", command="cat count"),
    )
    first = _engine_process(tmp_path, brain)
    try:
        await user.say()
        await _until(lambda: _counted(tmp_path))
    finally:
        _end(first)
    assert _ledger(tmp_path) == ["started"]
    second = _engine_process(tmp_path, brain)
    try:
        assert await user.results(2) == [(CUT_SHORT, True), ("run", False)]
    finally:
        _end(second)


async def test_a_result_that_was_stored_is_posted_and_not_computed_again(
    tmp_path: Path, brain: BrainProcess, client: anthropic.AsyncAnthropic
) -> None:
    user = await User.begin(
        client,
        brain,
        call("bash", command="echo run >> count; sleep 2; echo $RANDOM | tee answer"),
        call("bash", command="cat count answer"),
    )
    first = _engine_process(tmp_path, brain)
    try:
        await user.say()
        await _until(lambda: _counted(tmp_path))
        os.kill(brain.pid, signal.SIGSTOP)
        await _until(lambda: _ledger(tmp_path) == ["stored"])
    finally:
        _end(first)
        os.kill(brain.pid, signal.SIGCONT)
    second = _engine_process(tmp_path, brain)
    try:
        (answer, is_error), (seen, _) = await user.results(2)
        assert not is_error
        assert seen == f"run\n{answer}"
    finally:
        _end(second)

"""`kill -9` of a whole control plane: its successor goes on with the same work items and leases."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from anthropic import Anthropic

import control_plane_process
from brain_process import BrainProcess, call, script
from control_plane_process import ControlPlane
from handiwork.brains.conversation import TOOLSET
from handiwork.sessions.calls import CUT_SHORT

LEASE_SECONDS = 40
CONFIG = """
[sessions]
lease_seconds = {lease}
idle_seconds = 60
[local_brain]
enabled = false
[[environments]]
id = "{environment}"
base_url = "{url}"
key_file = "{key_file}"
"""


@pytest.fixture
def brain(tmp_path: Path) -> Iterator[BrainProcess]:
    """A brain that outlives the control plane, as a real one does."""
    with BrainProcess.start(tmp_path / "brain.db") as process:
        yield process


def config(brain: BrainProcess, directory: Path) -> str:
    key_file = directory / "environment-key"
    key_file.touch(0o600)
    key_file.write_text(brain.environment_key)
    return CONFIG.format(
        lease=LEASE_SECONDS,
        environment=brain.environment_id,
        url=brain.base_url,
        key_file=key_file,
    )


def say(brain: BrainProcess, *steps: dict[str, Any]) -> str:
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        agent = client.beta.agents.create(
            name="restart", model="scripted", system=script(*steps), tools=[{"type": TOOLSET}]
        )
        session = client.beta.sessions.create(agent=agent.id, environment_id=brain.environment_id)
        message(brain, session.id)
    return session.id


def message(brain: BrainProcess, session_id: str) -> None:
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        text = {"type": "text", "text": "go"}
        client.beta.sessions.events.send(
            session_id, events=[{"type": "user.message", "content": [text]}]
        )


def results(brain: BrainProcess, session_id: str, count: int) -> list[str]:
    limit = time.monotonic() + LEASE_SECONDS / 2
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        while True:
            events = client.beta.sessions.events.list(session_id)
            found = [e.content[0].text for e in events if e.type == "user.tool_result"]
            if len(found) >= count:
                return found
            assert time.monotonic() < limit, f"{len(found)} of {count} results came"
            time.sleep(0.05)


def items(brain: BrainProcess) -> list[dict[str, Any]]:
    """Return the brain's work items as it keeps them, `epoch` counts the leases of each."""
    path = f"file:{brain.database}?mode=ro"
    with closing(sqlite3.connect(path, uri=True)) as database:
        return [json.loads(body) for (body,) in database.execute("select body from work")]


def started(plane: ControlPlane) -> bool:
    return any((plane.data / "sandboxes/sandboxes").glob("*/upper/workspace/count"))


def until(what: Any) -> None:
    limit = time.monotonic() + 20
    while not what():
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.05)


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

"""`kill -9` of a whole control plane in the middle of a tool call, and its restart on the same data."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from anthropic import Anthropic

import control_plane_process
from control_plane_process import ControlPlane
from handiwork.brains.conversation import TOOLSET

CONFIG = "[sessions]\nlease_seconds = 4\n"
STEPS = [
    {
        "call": {
            "tool": "bash",
            "input": {"command": "echo once >> count; sleep 30.125; echo slept"},
        }
    },
    {"call": {"tool": "bash", "input": {"command": "cat count"}}},
]


def until(what: Callable[[], Any], seconds: float = 40.0) -> Any:
    limit = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.1)
    return found


def sdk(plane: ControlPlane) -> Anthropic:
    return Anthropic(api_key=plane.brain_key, base_url=plane.addresses["local_brain"])


def results(plane: ControlPlane, session_id: str) -> list[str]:
    with sdk(plane) as client:
        events = list(client.beta.sessions.events.list(session_id))
    return [event.content[0].text for event in events if event.type == "user.tool_result"]


def running_bash(plane: ControlPlane) -> bool:
    """Say whether the first call runs: its sleep, of a length that no other test has, is a process of this host."""
    return any(
        b"sleep\x0030.125" in line
        for entry in Path("/proc").glob("[0-9]*/cmdline")
        if (line := control_plane_process.command_line(entry))
    )


def test_the_call_is_answered_and_did_not_run_twice(tmp_path: Path) -> None:
    plane = control_plane_process.start(tmp_path, config=CONFIG)
    try:
        with sdk(plane) as client:
            agent = client.beta.agents.create(
                name="restart",
                model="scripted",
                system=json.dumps({"turns": [{"steps": STEPS}]}),
                tools=[{"type": TOOLSET}],
            )
            session = client.beta.sessions.create(
                agent=agent.id, environment_id=plane.addresses["environment_id"]
            )
            message = {"type": "user.message", "content": [{"type": "text", "text": "go"}]}
            client.beta.sessions.events.send(session.id, events=[message])
        until(lambda: running_bash(plane))
    finally:
        plane.kill()
    until(lambda: not running_bash(plane))
    with control_plane_process.running(tmp_path, config=CONFIG) as again:
        first, second = until(lambda: (r := results(again, session.id)) and len(r) == 2 and r)
    assert "interrupted by a restart" in first
    assert second == "once\n" or second == "once"

"""A control plane that serves a brain which outlives it, and the user's side of that brain."""

import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from anthropic import Anthropic

from brain_process import TOOLSET, BrainProcess, script
from control_plane_process import ControlPlane
from uppers import written

LEASE_SECONDS = 40
CONFIG = """
[sessions]
lease_seconds = {lease}
idle_seconds = 60
drain_seconds = {drain}
[local_brain]
enabled = false
[[environments]]
id = "{environment}"
base_url = "{url}"
key_file = "{key_file}"
"""


def config(brain: BrainProcess, directory: Path, *, drain_seconds: float = 30) -> str:
    """Return the settings of a control plane that serves this brain and none of its own."""
    key_file = directory / "environment-key"
    key_file.touch(0o600)
    key_file.write_text(brain.environment_key)
    return CONFIG.format(
        lease=LEASE_SECONDS,
        environment=brain.environment_id,
        url=brain.base_url,
        key_file=key_file,
        drain=drain_seconds,
    )


def say(brain: BrainProcess, *steps: dict[str, Any]) -> str:
    """Begin a session with a message that asks for these steps; its id."""
    with Anthropic(api_key=brain.api_key, base_url=brain.base_url) as client:
        agent = client.beta.agents.create(
            name="restart", model="scripted", system=script(*steps), tools=[TOOLSET]
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


def started(plane: ControlPlane, count: int = 1) -> bool:
    """Say whether so many sandboxes hold the file that a running call makes."""
    return len(written(plane.data, "workspace/count")) >= count


def until(what: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not what():
        assert time.monotonic() < limit, "it did not come"
        time.sleep(0.05)

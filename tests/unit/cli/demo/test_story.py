"""The demo's script, played by the real model on the real program; its policy, decided on."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handiwork.brains.local.models import (
    ModelFailedError,
    ModelRequest,
    Text,
    ToolCall,
    ToolResult,
)
from handiwork.brains.local.scripted import ScriptedModel
from handiwork.cli.demo import story, upstream
from handiwork.egress.decide import compile_layers
from handiwork.model.policy import EgressRequest, PolicyLayer, parse_policy, secrets_named


async def unheard(*_: object) -> None:
    """Take what is told while the model answers."""


class Workspace:
    """Runs the agent's calls in a directory that stands for /workspace; curl is not run."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[str] = []
        self.said: list[str] = []
        self.scratch: dict[str, object] = {}

    async def play(self, message: str) -> None:
        """Play one turn to its end."""
        model = ScriptedModel()
        answer = await model.respond(
            ModelRequest(system=story.script(), message=message, scratch=self.scratch), unheard
        )
        while True:
            self.said += [block.text for block in answer.blocks if isinstance(block, Text)]
            calls = [block for block in answer.blocks if isinstance(block, ToolCall)]
            self.scratch = answer.scratch
            if not calls:
                return
            results = tuple(ToolResult(call.name, self.do(call)) for call in calls)
            answer = await model.respond(
                ModelRequest(
                    system=story.script(), message=None, results=results, scratch=answer.scratch
                ),
                unheard,
            )

    def do(self, call: ToolCall) -> str:
        self.calls.append(call.name)
        given = call.input
        path = Path(str(given.get("file_path", "")).replace("/workspace", str(self.root)))
        match call.name:
            case "write":
                path.write_text(str(given["content"]))
            case "edit":
                text = path.read_text()
                assert text.count(str(given["old_string"])) == 1
                path.write_text(text.replace(str(given["old_string"]), str(given["new_string"])))
            case "bash" if "curl" not in given["command"] and "socket" not in given["command"]:
                command = str(given["command"]).replace("/workspace", str(self.root))
                command = command.replace("python3", sys.executable)
                done = subprocess.run(
                    ["sh", "-c", command], capture_output=True, text=True, check=False
                )
                return done.stdout + done.stderr
        return ""


async def test_the_agent_finds_its_bug_and_mends_it(tmp_path: Path) -> None:
    world = Workspace(tmp_path)
    await world.play(story.FIRST_MESSAGE)
    assert world.calls == "write write bash edit bash grep read bash bash bash bash write".split()  # noqa: SIM905
    assert any("The test fails: 3 != 2.5" in text for text in world.said)
    assert (tmp_path / "marker").read_text() == story.MARKER
    await world.play(story.SECOND_MESSAGE)
    assert (world.calls[-1], world.said[-1]) == ("bash", "Checked.")


async def test_a_test_that_passes_at_once_ends_the_story(tmp_path: Path) -> None:
    class Lucky(Workspace):
        def do(self, call: ToolCall) -> str:
            return "OK"

    with pytest.raises(ModelFailedError, match="expected to fail first: OK"):
        await Lucky(tmp_path).play(story.FIRST_MESSAGE)


async def test_a_fix_that_does_not_help_ends_the_story(tmp_path: Path) -> None:
    class Hopeless(Workspace):
        def do(self, call: ToolCall) -> str:
            return "AssertionError: 3 != 2.5\nFAILED" if call.name == "bash" else ""

    with pytest.raises(ModelFailedError, match="did not make the test pass"):
        await Hopeless(tmp_path).play(story.FIRST_MESSAGE)


async def test_the_policy_permits_one_thing_and_forbids_the_other() -> None:
    async with upstream.running([story.API_HOST], "sk-demo", datetime.now(UTC)) as world:
        text = json.dumps(story.policy(world.port, world.trust_anchor))
    policy = parse_policy(text, format="json")
    compiled = compile_layers((PolicyLayer(scope="agent", policy=policy),))

    def decide(method: str, host: str, path: str):
        return compiled.decide(
            EgressRequest(scheme="https", host=host, port=443, method=method, path=path)
        )

    api = decide("GET", story.API_HOST, "/v1/orders")
    assert (api.allowed, len(api.injections)) == (True, 1)
    assert not decide("GET", story.API_HOST, "/v2").injections
    evil = decide("POST", story.EVIL_HOST, "/upload")
    assert (evil.allowed, evil.rules[-1]) == (False, f"agent:{story.POLICY_NAME}/{story.DENY_RULE}")
    assert not decide("GET", story.DENIED_NAME, "/").allowed
    assert [name for _, name in secrets_named(policy)] == [story.SECRET_NAME]

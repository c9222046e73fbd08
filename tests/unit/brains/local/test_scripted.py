"""The scripted model behind the model's port."""

import json

import pytest

from handiwork.brains.local.models import (
    ModelFailedError,
    ModelRefusedError,
    ModelRequest,
    Text,
    ToolCall,
    ToolResult,
)
from handiwork.brains.local.scripted import ScriptedModel

SCRIPT = json.dumps(
    {"turns": [{"steps": [{"call": {"tool": "bash", "input": {}}}, {"say": "got ${result}"}]}]}
)


def unheard(_block: int, _text: str) -> None:
    raise AssertionError("a script is not said piece by piece")


async def test_it_calls_then_reads_the_result():
    model = ScriptedModel()
    first = await model.respond(ModelRequest(system=SCRIPT, message="go"), unheard)
    assert first.blocks == (ToolCall("bash", {}),)
    second = await model.respond(
        ModelRequest(
            system=SCRIPT, message=None, results=(ToolResult("bash", "42"),), scratch=first.scratch
        ),
        unheard,
    )
    assert second.blocks == (Text("got 42"),)


async def test_a_script_that_cannot_go_on_is_a_failure_of_the_model():
    failing = json.dumps({"turns": [{"steps": [{"fail": "no"}]}]})
    with pytest.raises(ModelFailedError, match="no"):
        await ScriptedModel().respond(ModelRequest(system=failing, message="go"), unheard)


def test_a_malformed_script_is_refused_before_it_runs():
    ScriptedModel().check(SCRIPT)
    with pytest.raises(ModelRefusedError, match=r"turns\[0\]\.steps\[0\]"):
        ScriptedModel().check('{"turns": [{"steps": [{}]}]}')

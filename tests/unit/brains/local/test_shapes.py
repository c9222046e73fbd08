"""Bodies of requests: what is missing, unknown or too much is a 400 that names it."""

import pytest

from handiwork.brains.local import shapes
from handiwork.brains.local.errors import WireError
from handiwork.brains.local.shapes import AgentCreate, EventsSend, SessionCreate, decode


@pytest.mark.parametrize(
    ("shape", "body", "named"),
    [
        (AgentCreate, b'{"model": "m"}', "name"),
        (AgentCreate, b'{"name": "n"}', "model"),
        (AgentCreate, b'{"name": "", "model": "m"}', r"\$\.name"),
        (AgentCreate, b'{"name": "n", "model": "m", "colour": 1}', "colour"),
        (AgentCreate, b'{"name": "n", "model": "m", "tools": [{"type": "x"}]}', "tools"),
        (AgentCreate, b"{", "malformed|truncated"),
        (SessionCreate, b"{}", "agent"),
        (EventsSend, b'{"events": []}', "events"),
        (EventsSend, b'{"events": [{"type": "agent.message"}]}', "agent.message"),
        (EventsSend, b'{"events": [{"type": "user.message", "content": []}]}', "content"),
        (EventsSend, b"[" * 100_000, r"\w"),
        (AgentCreate, b'{"name": "\xff", "model": "m"}', "utf-8"),
        (AgentCreate, b'{"\xff": 1}', "utf-8"),
    ],
)
def test_a_wrong_body_is_a_400_that_names_the_field(shape, body, named):
    with pytest.raises(WireError, match=named) as refused:
        decode(body, shape)
    assert refused.value.status == 400


def test_the_toolset_is_kept_with_its_defaults_written_out():
    body = (
        b'{"name": "n", "model": "m", "tools": [{"type": "agent_toolset_20260401",'
        b' "default_config": {"permission_policy": {"type": "always_ask"}},'
        b' "configs": [{"name": "bash", "enabled": false}]}]}'
    )
    [kept] = shapes.tools_as_kept(decode(body, AgentCreate).tools)
    asks = {"type": "always_ask"}
    assert kept["default_config"] == {"enabled": True, "permission_policy": asks}
    assert kept["configs"] == [{"name": "bash", "enabled": False, "permission_policy": asks}]


@pytest.mark.parametrize("names", [["bash"], ["mcp__x"], ["ant__x"], ["a", "a"]])
def test_reserved_and_doubled_names_are_refused(names):
    tools = [shapes.CustomTool(name=name, description="d", input_schema={}) for name in names]
    with pytest.raises(WireError, match="reserved or used twice"):
        shapes.tools_as_kept(tools)


def test_an_unknown_tool_of_the_toolset_is_refused():
    with pytest.raises(WireError, match="not a tool"):
        shapes.tools_as_kept([shapes.Toolset(configs=[shapes.ToolConfig(name="nope")])])


def test_metadata_is_merged_and_bounded():
    assert shapes.merged({"a": "1", "b": "2"}, {"a": None, "c": "3"}) == {"b": "2", "c": "3"}
    with pytest.raises(WireError, match="16"):
        shapes.merged({}, {str(number): "x" for number in range(17)})


def test_results_become_text_for_the_model():
    event = shapes.UserToolResult(
        tool_use_id="x",
        content=[shapes.TextBlock(text="a"), shapes.ImageBlock(source={})],
        is_error=None,
    )
    assert shapes.result_of(event).text == "a\n[image]"
    assert shapes.wire_event(event, "sevt_1")["type"] == "user.tool_result"


def test_models_are_kept_as_objects():
    assert shapes.model_as_kept("m")["id"] == "m"
    assert shapes.model_as_kept(shapes.ModelConfig(id="m", speed="fast"))["speed"] == "fast"

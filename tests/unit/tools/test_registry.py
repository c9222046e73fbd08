"""Tools made of functions: schema, checked input, names."""

import pytest

from handiwork.model.errors import ConfigError, ConflictError, ToolFailedError
from handiwork.model.tool import ImageBlock, TextBlock
from handiwork.tools.context import ToolContext
from handiwork.tools.registry import STOCK, Registry, tool
from handiwork.tools.toolset import stock


@tool("weather")
async def weather(context: ToolContext, city: str, days: int = 1) -> str:
    """Tell the weather."""
    return f"{city} {days} {context.session_id}"


async def test_a_function_becomes_a_tool(context: ToolContext) -> None:
    assert (weather.name, weather.description) == ("weather", "Tell the weather.")
    assert weather.schema == {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer", "default": 1}},
        "required": ["city"],
        "additionalProperties": False,
    }
    assert await weather.call(context, {"city": "Rome"}) == (TextBlock(text="Rome 1 sesn_1"),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "weather: invalid input: Object missing required field `city`"),
        ({"city": 1}, "weather: invalid input: Expected `str`, got `int` - at `$.city`"),
        ({"city": "x", "when": 1}, "weather: invalid input: Object contains unknown field `when`"),
    ],
)
async def test_wrong_input_is_told_to_the_model(
    context: ToolContext, given: dict[str, object], message: str
) -> None:
    with pytest.raises(ToolFailedError) as failed:
        await weather.call(context, given)
    assert str(failed.value) == message


async def test_what_a_tool_may_return(context: ToolContext) -> None:
    image = ImageBlock(media_type="image/png", data="")

    @tool("many")
    async def many(context: ToolContext, which: str) -> object:
        """Return something."""
        return {"text": "\ud800", "block": image, "blocks": (image, image), "none": ""}[which]

    assert await many.call(context, {"which": "text"}) == (
        TextBlock(text="\N{REPLACEMENT CHARACTER}"),
    )
    assert await many.call(context, {"which": "block"}) == (image,)
    assert await many.call(context, {"which": "blocks"}) == (image, image)
    assert await many.call(context, {"which": "none"}) == (TextBlock(text="(no output)"),)


@pytest.mark.parametrize("name", ["", "a b", "mcp__x", "ant__x", "x" * 129, "\u00e4"])
def test_names_that_no_brain_takes(name: str) -> None:
    with pytest.raises(ConfigError, match="is not valid"):
        tool(name)


def test_every_parameter_needs_a_type() -> None:
    async def untyped(context, city) -> str:
        return city

    with pytest.raises(ConfigError, match="parameter 'city' needs a plain type"):
        tool("untyped")(untyped)


def test_reserved_and_taken_names_are_refused() -> None:
    registry = Registry()
    registry.add(weather)
    assert registry.get("weather") is weather
    assert list(registry) == [weather]
    for taken in (weather, *(one for one in stock() if one.name in STOCK)):
        with pytest.raises(ConflictError, match="taken or reserved"):
            registry.add(taken)


def test_the_stock_toolset_is_that_of_the_contract() -> None:
    schemas = {one.name: set(one.schema["properties"]) for one in stock() if one.name in STOCK}
    assert schemas == {
        "bash": {"command", "restart", "timeout_ms"},
        "read": {"file_path", "view_range"},
        "write": {"file_path", "content"},
        "edit": {"file_path", "old_string", "new_string", "replace_all"},
        "glob": {"pattern", "path"},
        "grep": {"pattern", "path"},
    }
    assert not any("$ref" in str(one.schema) for one in stock())

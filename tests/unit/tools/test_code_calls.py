"""What code may call, and how it may write it."""

from typing import Any

import msgspec
import pytest

from code_context import context_in
from handiwork.model.errors import ToolFailedError
from handiwork.model.sandbox import SandboxSpec
from handiwork.model.tool import Block, ImageBlock, TextBlock
from handiwork.testing.sandbox import FakeDriver
from handiwork.tools.code_calls import CALLS, CodeCalls, session_tools, workspace_tools
from handiwork.tools.code_interface import identifier, python, python_identifier, typescript
from handiwork.tools.context import ToolContext
from handiwork.tools.registry import tool


@tool("look-up")
async def look_up(context: ToolContext, city: str, days: int = 1) -> str:
    """Look the weather up."""
    raise AssertionError("it is called by the context alone")


class Calls(CodeCalls):
    """Those of a run, whose tools answer with what they were given."""

    def __init__(self, context: ToolContext) -> None:
        super().__init__(context)
        self.heard: list[Any] = []

    async def call(self, name: str, given: Any) -> Any:
        return await self.serve(name, msgspec.Raw(msgspec.json.encode(given)))


@pytest.fixture
async def calls() -> Calls:
    box = await FakeDriver().create(SandboxSpec(id="sbx_one00000001"))
    heard: list[Any] = []

    async def call_tool(name: str, given: Any) -> tuple[Block, ...]:
        heard.append((name, given))
        image = ImageBlock(media_type="image/png", data="eA==")
        return (
            (TextBlock(text="sunny"), image)
            if given.get("days") == 2
            else (
                TextBlock(text="sunny"),
                TextBlock(text="warm"),
            )
        )

    made = Calls(context_in(box, tools=(look_up,), call_tool=call_tool))
    made.heard = heard
    return made


async def test_arguments_come_by_name_or_in_order(calls: Calls) -> None:
    for given in (
        {"path": "a", "content": "x"},
        {"$arguments": ["a", "x"]},
        {"$arguments": ["a"], "content": "x"},
    ):
        assert await calls.call("write", given) == 1
    assert await calls.call("read", {"path": "a"}) == "x"
    for name in ("delete", "delete_"):
        assert await calls.call(name, {"path": "a"}) is None
    await calls.call("look_up", {"$arguments": ["Rome"], "days": 3})
    assert calls.heard == [("look-up", {"city": "Rome", "days": 3})]


@pytest.mark.parametrize(
    ("name", "spelled"),
    [
        ("look-up", ("look_up", "look-up")),
        ("1st", ("_1st", "1st")),
        ("lambda", ("lambda", "lambda_")),
        ("class", ("class", "class_")),
    ],
)
async def test_a_tool_is_called_as_either_language_is_shown_it(
    name: str, spelled: tuple[str]
) -> None:
    box = await FakeDriver().create(SandboxSpec(id="sbx_one00000001"))

    async def call_tool(called: str, given: Any) -> tuple[Block, ...]:
        return (TextBlock(text=called),)

    named = tool(name, description="")(look_up.function)
    calls = Calls(context_in(box, tools=(named,), call_tool=call_tool))
    assert identifier(name) in spelled
    assert python_identifier(name) in spelled
    for one in spelled:
        assert await calls.call(one, {"city": "Rome"}) == name


async def test_a_tool_gives_its_text_or_its_parts(calls: Calls) -> None:
    assert await calls.call("look_up", {"city": "Rome"}) == "sunny\nwarm"
    assert await calls.call("look_up", {"city": "Rome", "days": 2}) == [
        {"type": "text", "text": "sunny"},
        {"type": "image", "media_type": "image/png", "data": "eA=="},
    ]


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("read", {}, "codemode.read: .*it takes one object of path"),
        ("read", {"path": 1}, "codemode.read: Expected `str`"),
        ("read", {"path": "a", "more": 1}, "codemode.read: .*more"),
        ("read", {"$arguments": ["a", "b"]}, "codemode.read: .*at most length 1"),
        ("read", {"$arguments": 1}, "codemode.read: Expected `array`"),
        ("read", [1], "it takes one object"),
        ("look-down", {}, "there is no such tool; there are read, .*look_up"),
        ("x" * 1000, {}, "codemode.x{80}: there is no such tool"),
    ],
)
async def test_what_is_called_wrongly_is_told_how(
    calls: Calls, name: str, given: Any, why: str
) -> None:
    with pytest.raises(ToolFailedError, match=why):
        await calls.call(name, given)


async def test_without_tools_there_are_files_alone() -> None:
    box = await FakeDriver().create(SandboxSpec(id="sbx_one00000001"))
    with pytest.raises(ToolFailedError, match=f"there are {', '.join(CALLS)}$"):
        await CodeCalls(context_in(box)).serve("look_up", msgspec.Raw(b"{}"))


def test_code_is_shown_all_that_it_can_call() -> None:
    shown = [*workspace_tools(), *session_tools((look_up,))]
    in_typescript, in_python = typescript(shown), python(shown)
    for name in (*CALLS, "look_up"):
        assert f"\t{identifier(name)}: (input:" in in_typescript
        assert f"async def {identifier(name)}(" in in_python
    assert "city: string" in in_typescript
    assert "days?: number" in in_typescript


async def test_tools_are_found_by_words_and_described(calls: Calls) -> None:
    assert await calls.call("search", {"query": "weather"}) == [
        {"name": "look_up", "description": "Look the weather up."}
    ]
    assert await calls.call("search", {"query": "nothing of it"}) == []
    assert await calls.call("search", {"query": "", "limit": 0}) == []
    shown = await calls.call("describe", {"name": "look-up"})
    assert "look_up: (input: LookUpInput) => Promise<LookUpOutput>" in shown
    assert "read: (input:" in await calls.call("describe", {"$arguments": ["read"]})
    with pytest.raises(ToolFailedError, match=r"there is no tool 'other'; codemode\.search"):
        await calls.call("describe", {"name": "other"})

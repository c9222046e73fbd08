"""`execute` and `run_file`: what is asked of the sandbox, and what the model reads of it."""

import base64
import json
from typing import Any

import pytest

from code_context import context_in
from handiwork.model.code import CodeError, CodeRequest, CodeResult, LimitKind, LogLine
from handiwork.model.errors import ToolFailedError, UnsupportedError
from handiwork.model.sandbox import SandboxSpec
from handiwork.model.tool import DocumentBlock, TextBlock
from handiwork.testing.sandbox import FakeDriver, FakeSandbox
from handiwork.tools import code
from handiwork.tools.code import execute, run_file
from handiwork.tools.code_interface import CodeTool


@pytest.fixture
async def box() -> FakeSandbox:
    return await FakeDriver().create(SandboxSpec(id="sbx_one00000001"))


def gives(box: FakeSandbox, **result: Any) -> list[CodeRequest]:
    asked: list[CodeRequest] = []

    async def run(request: CodeRequest, tools: Any, on_log: Any) -> CodeResult:
        asked.append(request)
        return CodeResult(**result)

    box.code = run
    return asked


async def told(box: FakeSandbox, text: str = "1") -> Any:
    (block,) = await execute.call(context_in(box), {"code": text})
    assert isinstance(block, TextBlock)
    return json.loads(block.text)


async def test_code_is_run_once_in_a_cell_of_its_own(box: FakeSandbox) -> None:
    asked = gives(box, value_json=b"[1]")
    given = {"code": "```python\n1\n```", "language": "python"}
    await execute.call(context_in(box, timeout_seconds=2), given)
    (request,) = asked
    assert (request.code.strip(), request.language, request.fresh) == ("1", "python", True)
    assert (request.limits.cpu_ms, request.limits.wall_seconds) == (2000, 2)


async def test_result_and_log_are_one_object(box: FakeSandbox) -> None:
    lines = (LogLine(level="log", text="a"), LogLine(level="error", text="b"))
    gives(box, value_json=b'{"a":1}', logs=lines, logs_cut=True)
    assert await told(box) == {
        "result": {"a": 1},
        "logs": ["a", "[error] b"],
        "logs_cut": "there was more than a run may log",
    }


async def test_an_error_is_one_of_the_tool(box: FakeSandbox) -> None:
    error = CodeError(name="LimitError", message="too much", stack="at a", limit=LimitKind.CPU)
    gives(box, error=error, logs=(LogLine(level="log", text="a"),))
    with pytest.raises(ToolFailedError) as raised:
        await told(box)
    assert json.loads(str(raised.value)) == {
        "error": "LimitError: too much",
        "stack": "at a",
        "logs": ["a"],
    }


async def test_a_document_is_shown_and_other_bytes_are_told(box: FakeSandbox) -> None:
    data = base64.b64encode(b"%PDF-1.7").decode()
    gives(box, value_json=json.dumps({"$bytes": data}, separators=(",", ":")).encode())
    _, shown = await execute.call(context_in(box), {"code": "1"})
    assert shown == DocumentBlock(media_type="application/pdf", data=data)
    for value in (b'{"$bytes":"eA=="}', b'{"$bytes":"?"}', b'{"$bytes":1}'):
        gives(box, value_json=value)
        assert await told(box) == {"result": json.loads(value)}


async def test_a_file_is_run_under_its_name(box: FakeSandbox) -> None:
    asked = gives(box)
    await box.files.write("/workspace/a/b.PY", b"1")
    await run_file.call(context_in(box), {"path": "a/./b.PY"})
    assert (asked[0].name, asked[0].language, asked[0].code) == ("/workspace/a/b.PY", "python", "1")


@pytest.mark.parametrize(
    ("path", "data", "why"),
    [
        ("a", b"1", "its name tells no language; use one that ends in .js, .mjs, .py"),
        ("a.js", None, "a.js"),
        ("a.js", b"\xff", "it is no UTF-8 text"),
        ("a.js", b"x" * 11, "more than 0 MiB"),
    ],
)
async def test_what_cannot_be_run_is_told(
    box: FakeSandbox, monkeypatch, path: str, data: bytes | None, why: str
) -> None:
    gives(box)
    monkeypatch.setattr(code, "FILE_BYTES", 10)
    if data is not None:
        await box.files.write(f"/workspace/{path}", data)
    with pytest.raises(ToolFailedError, match=why):
        await run_file.call(context_in(box), {"path": path})


async def test_a_tier_that_runs_no_code_says_so(box: FakeSandbox) -> None:
    with pytest.raises(UnsupportedError, match="runs no code"):
        await execute.call(context_in(box), {"code": "1"})


def test_a_description_shows_what_there_is_room_for() -> None:
    tools = [
        CodeTool(name=f"tool_{number}", description="x" * 500, input_schema={"type": "object"})
        for number in range(100)
    ]
    few, many = code.described(tools[:2]), code.described(tools)
    assert "tool_0: (input:" in few
    assert "async def tool_1(" in few
    assert "codemode.search" not in few
    assert "tool_0: (input:" in many
    assert "tool_99" not in many
    assert "codemode.search" in many
    assert len(many) < 3 * code.INTERFACE_CHARACTERS
    for example in (*code.EXAMPLES, *code.PYTHON_EXAMPLES):
        assert example in code.described()

"""Searching in a cell: what it is given and what becomes of what it says, with its program played here."""

import base64
from typing import Any

import msgspec
import pytest

from code_context import context_in
from handiwork.model.code import CodeError, CodeRequest, CodeResult, LimitKind
from handiwork.model.errors import ToolFailedError
from handiwork.model.sandbox import SandboxSpec
from handiwork.testing.sandbox import FakeDriver, FakeSandbox
from handiwork.tools import cell_search
from handiwork.tools.walk import walked


@pytest.fixture
async def box() -> FakeSandbox:
    return await FakeDriver().create(SandboxSpec(id="sbx_one00000001"))


async def searched(box: FakeSandbox, pattern: str = "x", wanted: int = 10) -> tuple[str, list[str]]:
    lines: list[str] = []

    async def take(line: str) -> bool:
        lines.append(line)
        return len(lines) < wanted

    context = context_in(box, timeout_seconds=7)
    problem = await cell_search.searched(
        context, pattern, walked(box.files, "/workspace", 100), take
    )
    return problem, lines


def plays(box: FakeSandbox, *answers: Any) -> tuple[list[CodeRequest], list[Any]]:
    """Have the program take all files, and then say these lines."""
    asked: list[CodeRequest] = []
    batches: list[Any] = []

    async def run(request: CodeRequest, tools: Any, on_log: Any) -> CodeResult:
        asked.append(request)
        while batch := await tools("batch", msgspec.Raw(b"{}")):
            batches.append(batch)
        for answer in answers:
            if not await tools("found", msgspec.Raw(msgspec.json.encode(answer))):
                break
        return CodeResult(value_json=b'""')

    box.code = run
    return asked, batches


async def test_files_go_in_and_lines_come_out(box: FakeSandbox) -> None:
    asked, batches = plays(box, {"lines": ["a:1:x", "a:2:x"]}, {"lines": ["b:1:x"]})
    await box.files.write("/workspace/a", b"x\nx")
    await box.files.write("/workspace/d/empty", b"")
    assert await searched(box) == ("", ["a:1:x", "a:2:x", "b:1:x"])
    assert batches == [[("/workspace/a", base64.b64encode(b"x\nx").decode())]]
    (request,) = asked
    assert (request.fresh, request.language, request.limits.wall_seconds) == (True, "python", 7)


async def test_nobody_is_asked_for_more_than_is_wanted(box: FakeSandbox) -> None:
    plays(box, {"lines": ["1", "2"]}, {"lines": ["3"]})
    assert await searched(box, wanted=2) == ("", ["1", "2"])


@pytest.mark.parametrize("pattern", ["'", '"', "\\", "\n", "\ud800", "{x}", "é\u2028"])
async def test_no_pattern_is_more_than_a_text_of_the_program(
    box: FakeSandbox, pattern: str
) -> None:
    asked, _ = plays(box)
    await searched(box, pattern)
    last = asked[0].code.rpartition("\n")[2]
    found = eval(last.removeprefix("await search(json.loads(").removesuffix("))"))
    assert msgspec.json.decode(found) == pattern.encode("utf-8", "replace").decode()


async def test_many_files_are_several_batches(box: FakeSandbox, monkeypatch) -> None:
    monkeypatch.setattr(cell_search, "BATCH_FILES", 2)
    monkeypatch.setattr(cell_search, "BATCH_BYTES", 5)
    _, batches = plays(box)
    for name, data in (("a", b"1"), ("b", b"2"), ("c", b"333333"), ("d", b"4")):
        await box.files.write(f"/workspace/{name}", data)
    await searched(box)
    assert [[path[-1] for path, _ in batch] for batch in batches] == [["a", "b"], ["c"], ["d"]]


async def test_a_file_that_is_too_long_is_named(box: FakeSandbox, monkeypatch) -> None:
    monkeypatch.setattr(cell_search, "FILE_BYTES", 4)
    plays(box, {"lines": ["a:1:x"]})
    await box.files.write("/workspace/long", b"12345")
    problem, lines = await searched(box)
    assert problem.startswith("not searched")
    assert problem.endswith("/workspace/long")
    assert lines == ["a:1:x"]


@pytest.mark.parametrize("said", [{}, {"lines": [1]}, {"lines": "a"}, [], {"lines": [], "more": 1}])
async def test_what_the_program_must_not_say_is_refused(box: FakeSandbox, said: Any) -> None:
    plays(box, said)
    with pytest.raises(ToolFailedError, match="found: "):
        await searched(box)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (CodeError(name="LimitError", message="cpu", limit=LimitKind.CPU), "timed out after 7s"),
        (CodeError(name="LimitError", message="wall", limit=LimitKind.WALL), "timed out after 7s"),
        (
            CodeError(name="LimitError", message="memory", limit=LimitKind.MEMORY),
            "LimitError: memory",
        ),
    ],
)
async def test_a_run_that_is_ended_says_why(box: FakeSandbox, error: CodeError, told: str) -> None:
    async def run(request: CodeRequest, tools: Any, on_log: Any) -> CodeResult:
        return CodeResult(error=error)

    box.code = run
    problem, _ = await searched(box)
    assert problem.startswith(told)

"""The `bash` tool where commands run in cells, with the cell played here."""

from typing import Any

import msgspec
import pytest

from code_context import context_in
from handiwork.model.code import CodeError, CodeRequest, CodeResult, LimitKind
from handiwork.model.errors import ToolFailedError
from handiwork.model.sandbox import SandboxSpec
from handiwork.model.tool import TextBlock
from handiwork.testing.sandbox import FakeDriver, FakeSandbox
from handiwork.tools import cell_shell
from handiwork.tools.shell import bash


@pytest.fixture
async def box() -> FakeSandbox:
    return await FakeDriver().create(SandboxSpec(id="sbx_one00000001"))


def plays(box: FakeSandbox, value: Any = None, error: CodeError | None = None) -> list[CodeRequest]:
    asked: list[CodeRequest] = []

    async def run(request: CodeRequest, tools: Any, on_log: Any) -> CodeResult:
        asked.append(request)
        return CodeResult(value_json=msgspec.json.encode(value), error=error)

    box.code = run
    return asked


def ended(code: int = 0, out: str = "", err: str = "") -> dict[str, Any]:
    return {"exit_code": code, "stdout": out, "stderr": err}


async def told(box: FakeSandbox, **given: Any) -> str:
    (block,) = await bash.call(context_in(box, thread_id="thr_1", timeout_seconds=7), given)
    assert isinstance(block, TextBlock)
    return block.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (ended(0, "hi\n"), "hi"),
        (ended(0, "", "careful\n"), "careful"),
        (ended(0, "out\n", "err"), "out\nerr"),
        (ended(), "(no output)"),
    ],
)
async def test_what_a_command_wrote(box: FakeSandbox, value: Any, text: str) -> None:
    asked = plays(box, value)
    assert await told(box, command="echo hi") == text
    (request,) = asked
    assert (request.code, request.language, request.scope) == ("echo hi", "bash", "thr_1")
    assert (request.fresh, request.limits.wall_seconds, request.limits.cpu_ms) == (False, 7, 7000)


async def test_a_command_may_ask_for_more_time(box: FakeSandbox) -> None:
    asked = plays(box, ended())
    await told(box, command="x", timeout_ms=600_000)
    assert (asked[0].limits.wall_seconds, asked[0].limits.cpu_ms) == (600, cell_shell.MOST_CPU_MS)


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (ended(3, "out\n", "err\n"), None, "out\nerr\nexit code 3"),
        (
            None,
            CodeError(name="LimitError", message="too long", limit=LimitKind.WALL),
            "bash: bash command timed out after 7s\n[the shell was ended;",
        ),
        (
            None,
            CodeError(name="LimitError", message="it used too much", limit=LimitKind.CPU),
            "bash: it used too much\n[the shell was ended;",
        ),
        (ended(256), None, "bash: the shell said what it must not"),
        ({"exit_code": 0}, None, "bash: the shell said what it must not"),
        (7, None, "bash: the shell said what it must not"),
    ],
)
async def test_what_went_wrong_is_an_error(
    box: FakeSandbox, value: Any, error: CodeError | None, text: str
) -> None:
    plays(box, value, error)
    with pytest.raises(ToolFailedError) as failed:
        await told(box, command="x")
    assert str(failed.value).startswith(text)


async def test_a_restart_begins_anew(box: FakeSandbox) -> None:
    asked = plays(box, ended())
    assert await told(box, restart=True) == "bash session restarted"
    assert [(one.restart, one.scope) for one in asked] == [(True, "thr_1")]


async def test_nothing_goes_on_in_the_background(box: FakeSandbox) -> None:
    asked = plays(box, ended())
    with pytest.raises(ToolFailedError, match="do not go on in the background"):
        await told(box, command="# background\nsleep 1")
    assert asked == []


async def test_a_script_has_a_shell_of_its_own(box: FakeSandbox) -> None:
    asked = plays(box, ended(0, "x\n"))
    assert await cell_shell.run_script(context_in(box, timeout_seconds=7), "echo x") == "x"
    assert [(one.code, one.fresh) for one in asked] == [("echo x", True)]

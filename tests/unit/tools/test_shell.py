"""The `bash` tool: what the model reads."""

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from handiwork.model.errors import ToolFailedError
from handiwork.model.sandbox import OUT_OF_MEMORY
from handiwork.model.tool import TextBlock
from handiwork.tools import shell_process
from handiwork.tools.context import ToolContext
from handiwork.tools.shell import bash
from host_sandbox import HostKills, HostSandbox


async def told(context: ToolContext, given: Mapping[str, Any]) -> str:
    (block,) = await bash.call(context, given)
    assert isinstance(block, TextBlock)
    return block.text


async def test_output_alone_when_all_went_well(context: ToolContext) -> None:
    assert await told(context, {"command": "echo hi"}) == "hi"
    assert await told(context, {"command": "true"}) == "(no output)"


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({}, "bash: command is required"),
        ({"command": ""}, "bash: command is required"),
        ({"command": "false"}, "exit code 1"),
        ({"command": "echo no; exit 3"}, "no\nexit code 3\n[the shell ended with this command;"),
        (
            {"command": "echo early; sleep 60", "timeout_ms": 3000},
            "bash: bash command timed out after 3.0s\nearly\n[the shell and all that it had started were ended;",
        ),
        ({"command": "x", "timeout_ms": -1}, "bash: timeout_ms must not be negative"),
        ({"command": 5}, "bash: invalid input: Expected `str | null`, got `int` - at `$.command`"),
        ({"kommand": "x"}, "bash: invalid input: Object contains unknown field `kommand`"),
    ],
)
async def test_what_went_wrong_is_an_error(
    context: ToolContext, given: Mapping[str, Any], text: str
) -> None:
    with pytest.raises(ToolFailedError) as failed:
        await told(context, given)
    assert str(failed.value).startswith(text)


async def test_a_kill_for_memory_is_told_of_what_failed(
    box: HostSandbox, context: ToolContext
) -> None:
    box.kills_each = 1
    with pytest.raises(ToolFailedError) as failed:
        await told(context, {"command": "echo built; false"})
    assert str(failed.value) == f"built\nexit code 1\n[{OUT_OF_MEMORY}]"
    with pytest.raises(ToolFailedError) as late:
        await told(context, {"command": "sleep 60", "timeout_ms": 1000})
    assert f"\n[{OUT_OF_MEMORY}]\n[the shell and all" in str(late.value)
    assert OUT_OF_MEMORY not in await told(context, {"command": "echo fine"})


async def test_what_a_sandbox_does_not_answer_is_not_told(
    box: HostSandbox, context: ToolContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_: HostKills) -> bool:
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(HostKills, "rose", never)
    monkeypatch.setattr(shell_process, "KILLS_SECONDS", 0.1)
    with pytest.raises(ToolFailedError) as failed:
        await told(context, {"command": "false"})
    assert str(failed.value) == "exit code 1"
    assert await told(context, {"command": "echo next"}) == "next"


async def test_a_line_made_to_be_slow_is_no_directive(context: ToolContext) -> None:
    """Tried with every way to share out the spaces, it would take hours."""
    line = "# background after 5" + " " * 500_000 + "x"
    assert await told(context, {"command": f"{line}\necho ran"}) == "ran"


async def test_a_new_shell_is_announced_once(context: ToolContext) -> None:
    await told(context, {"command": "exit 0"})
    first = await told(context, {"command": "echo a"})
    assert first.startswith("[the former shell was gone")
    assert first.endswith("\na")
    assert await told(context, {"command": "echo b"}) == "b"


async def test_restart(context: ToolContext) -> None:
    await told(context, {"command": "X=1"})
    assert await told(context, {"restart": True}) == "bash session restarted"
    assert await told(context, {"command": "echo [$X]"}) == "[]"


async def test_the_operators_limit_holds_without_one_of_the_call(context: ToolContext) -> None:
    short = dataclasses.replace(context, timeout_seconds=0.2)
    for given in ({"command": "sleep 9"}, {"command": "sleep 9", "timeout_ms": 0}):
        with pytest.raises(ToolFailedError, match=r"timed out after 0.2s"):
            await told(short, given)

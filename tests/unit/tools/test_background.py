"""The `background` tool, and the line `# background` of `bash`: two ways to the same jobs."""

import asyncio
import dataclasses
import re
from typing import Any

import msgspec
import pytest

from handiwork.model.errors import ToolFailedError
from handiwork.model.tool import TextBlock
from handiwork.tools.background import background
from handiwork.tools.context import ToolContext
from handiwork.tools.registry import Tool
from handiwork.tools.shell import bash
from host_sandbox import HostSandbox

JOB = re.compile(r"job_[0-9a-f]{8}")


async def told(tool: Tool, context: ToolContext, **given: Any) -> str:
    (block,) = await tool.call(context, given)
    assert isinstance(block, TextBlock)
    return block.text


async def started(context: ToolContext, command: str) -> str:
    found = JOB.search(await told(bash, context, command=command))
    assert found
    return found[0]


async def test_the_life_of_a_job(context: ToolContext) -> None:
    first = await told(background, context, action="start", command="echo one; sleep 60")
    job = JOB.search(first)[0]
    assert re.fullmatch(
        rf"started job {job}, pid (\d+): its output grows in /workspace/.tool-output/{job}.log;"
        r" it ends with the sandbox, or by: kill -- -\1",
        first,
    )
    listed = await told(background, context, action="list")
    assert listed.startswith(f"{job}: running; pid ")
    assert listed.endswith("; echo one; sleep 60")
    shown = await told(background, context, action="output", job=job, wait_seconds=3)
    assert shown == f"{job}: running\none"
    assert await told(background, context, action="kill", job=job) == (
        f"{job} was running; it is ended with exit code 137"
    )
    assert await told(bash, context, command="echo next") == "next"
    assert (await told(background, context, action="output", job=job)).startswith(
        f"{job}: ended with exit code 137\none"
    )


async def test_output_waits_for_the_end(context: ToolContext) -> None:
    job = JOB.search(await told(background, context, action="start", command="sleep 0.2; echo x"))[
        0
    ]
    shown = await told(background, context, action="output", job=job, wait_seconds=20)
    assert shown == f"{job}: ended with exit code 0\nx"
    assert await told(background, context, action="list") != "no background jobs"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"action": "start"}, "background: start needs a command"),
        ({"action": "start", "command": " "}, "background: start needs a command"),
        ({"action": "start", "command": "a\0"}, "background: start needs a command"),
        ({"action": "output"}, "background: output needs a job, such as job_0123abcd"),
        ({"action": "kill", "job": "1"}, "there is no background job '1'"),
        ({"action": "stop"}, "background: invalid input: Invalid enum value 'stop'"),
    ],
)
async def test_what_is_refused(context: ToolContext, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolFailedError, match=re.escape(message)):
        await told(background, context, **given)


async def test_no_jobs(context: ToolContext) -> None:
    assert await told(background, context, action="list") == "no background jobs"


def test_the_schema_is_one_that_every_brain_takes() -> None:
    shown = msgspec.json.encode(background.schema).decode()
    assert "$ref" not in shown
    assert background.schema["type"] == "object"
    assert not {"anyOf", "oneOf", "allOf"} & set(background.schema)
    assert sorted(background.schema["properties"]) == ["action", "command", "job", "wait_seconds"]


async def test_a_line_of_bash_starts_a_job_in_a_copy_of_the_shell(context: ToolContext) -> None:
    await told(bash, context, command="mkdir sub; cd sub; X=5")
    job = await started(context, "# background\nbasename $PWD; echo $X; X=6; cd /; sleep 60")
    shown = await told(background, context, action="output", job=job, wait_seconds=3)
    assert shown == f"{job}: running\nsub\n5"
    assert await told(bash, context, command="basename $PWD; echo $X") == "sub\n5"
    await told(bash, context, restart=True)
    assert "running" in await told(background, context, action="output", job=job)


async def test_the_next_command_tells_of_its_end(context: ToolContext) -> None:
    job = await started(context, "# background\nexit 4")
    await context.jobs.wait(await context.jobs.find(job), 10)
    shown = await told(bash, context, command="echo hi")
    path = f"/workspace/.tool-output/{job}.log"
    assert shown == f"hi\n[background job {job} ended with exit code 4; output: {path}]"
    assert await told(bash, context, command="echo hi") == "hi"


@pytest.mark.parametrize(
    "line",
    [
        "# background after 20s",
        "#background after 20",
        "# background  after",
        "# background after 9 s ",
    ],
)
async def test_one_that_ends_in_time_is_answered_like_any(context: ToolContext, line: str) -> None:
    assert await told(bash, context, command=f"{line}\necho done") == "done"
    assert await told(bash, context, command=f"{line}\ntrue") == "(no output)"
    with pytest.raises(ToolFailedError, match=r"\Aoops\nexit code 3\Z"):
        await told(bash, context, command=f"{line}\necho oops; exit 3")
    assert await told(bash, context, command="echo next") == "next"


@pytest.mark.parametrize("line", ["# background after 0s", "# background after"])
async def test_one_that_takes_longer_goes_on(context: ToolContext, line: str) -> None:
    soft = dataclasses.replace(context, timeout_seconds=0.4)
    if "0s" in line:
        soft = dataclasses.replace(context, longest_seconds=0.4)
    shown = await told(bash, soft, command=f"{line}\necho early; sleep 60")
    assert "[it goes on in the background after 0" in shown
    job = JOB.search(shown)[0]
    assert (await context.jobs.find(job)).running


async def test_cancelled_while_it_is_waited_for_it_ends(
    context: ToolContext, box: HostSandbox
) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await told(bash, context, command="# background after 60s\nsleep 60")
    assert (await box.started[-1].wait()).exit_code == 137


@pytest.mark.parametrize(
    "command", ["# background", "# background\n \n", "# background after 5s\n"]
)
async def test_a_line_alone_is_no_command(context: ToolContext, command: str) -> None:
    with pytest.raises(ToolFailedError, match="a command is required"):
        await told(bash, context, command=command)


@pytest.mark.parametrize(
    "comment", ["# background noise", "# backgrounds", "## background", "echo # background"]
)
async def test_other_comments_mean_nothing(context: ToolContext, comment: str) -> None:
    assert (await told(bash, context, command=f"{comment}\necho hi")).endswith("hi")
    assert await told(background, context, action="list") == "no background jobs"


async def test_a_command_out_of_time_is_told_of_it(context: ToolContext) -> None:
    with pytest.raises(ToolFailedError, match="Begin a long command with the line '# background'"):
        await told(bash, context, command="sleep 60", timeout_ms=200)

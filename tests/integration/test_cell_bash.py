"""bash in real cells: over the files of a workspace, as a tool of a session, within its cage."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from handiwork.config import ToolSettings
from handiwork.model.code import CodeLimits, CodeRequest, LimitKind
from handiwork.model.errors import GuestError
from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.model.session import BrainSession
from handiwork.sandboxes.isolate.driver import IsolateDriver
from handiwork.sandboxes.isolate.sandbox import IsolateSandbox
from handiwork.tools.toolset import stock
from tool_world import ToolWorld

SESSION = BrainSession(
    id="sesn_1", agent_id="agent_1", agent_name="a", toolset=True, custom_tools=("run_file",)
)


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[IsolateDriver]:
    made = IsolateDriver(tmp_path, user_id=(1 << 29) + 79 if os.geteuid() == 0 else 0)
    yield made
    for left in await made.leftovers():
        await made.destroy(left)


@pytest.fixture
async def box(driver: IsolateDriver) -> IsolateSandbox:
    return await driver.create(SandboxSpec(id="sbx_bash000001", env={"TOKEN": "placeholder"}))


@pytest.fixture
def world(box: IsolateSandbox) -> ToolWorld:
    return ToolWorld(box, ToolSettings(), stock(), session=SESSION)


async def ran(box: IsolateSandbox, code: str, **given: Any) -> tuple[int, str, str]:
    done = await box.run_code(CodeRequest(code=code, language="bash", **given))
    assert done.error is None, done.error
    return (done.value["exit_code"], done.value["stdout"], done.value["stderr"])


async def test_it_works_on_the_files_of_the_workspace(box: IsolateSandbox) -> None:
    await box.files.write("/workspace/data/a.csv", b"one,1\ntwo,2\nthree,3\n")
    await box.files.write("/workspace/raw", bytes(range(256)))
    script = (
        "awk -F, '{ sum += $2 } END { print sum }' data/a.csv > sum; sort -r data/a.csv | head -1"
    )
    assert await ran(box, script) == (0, "two,2\n", "")
    assert await box.files.read("/workspace/sum") == b"6\n"
    assert await ran(box, "cp raw copy; chmod 755 copy; rm raw; mkdir -p x/y; mv data x/y/") == (
        0,
        "",
        "",
    )
    assert await box.files.read("/workspace/copy") == bytes(range(256))
    assert (await box.files.stat("/workspace/copy")).mode == 0o755
    assert await box.files.read("/workspace/x/y/data/a.csv") == b"one,1\ntwo,2\nthree,3\n"
    with pytest.raises(GuestError):
        await box.files.stat("/workspace/raw")


async def test_other_languages_see_what_it_wrote(box: IsolateSandbox) -> None:
    await ran(box, "echo '{\"a\": 1}' > a.json")
    code = "JSON.parse(await workspace.read('a.json')).a"
    assert (await box.run_code(CodeRequest(code=code))).value == 1
    await box.run_code(CodeRequest(code="await workspace.write('b', 'from javascript')"))
    assert await ran(box, "cat b; jq .a a.json") == (0, "from javascript1\n", "")


async def test_shells_are_apart_by_scope(box: IsolateSandbox) -> None:
    await ran(box, "x=1; cd /tmp", scope="one")
    assert await ran(box, "echo ${x-none}; pwd", scope="two") == (0, "none\n/workspace\n", "")
    assert await ran(box, "echo $x; pwd", scope="one") == (0, "1\n/tmp\n", "")
    assert await ran(box, "echo ${x-none}", scope="one", fresh=True) == (0, "none\n", "")
    assert await ran(box, "echo ${x-none}", scope="one", restart=True) == (0, "none\n", "")
    assert await ran(box, "echo $TOKEN") == (0, "placeholder\n", "")


async def test_there_are_not_more_shells_than_there_is_memory(driver: IsolateDriver) -> None:
    spec = SandboxSpec(id="sbx_bash000002", limits=Limits(memory_mib=512))
    box = await driver.create(spec)
    for number in range(6):
        await ran(box, f"x={number}", scope=str(number))
    kept = [(await ran(box, "echo ${x-none}", scope=str(number)))[1] for number in (5, 4, 0)]
    assert kept == ["5\n", "4\n", "none\n"]


async def test_a_shell_that_met_a_limit_is_another_one_next_time(box: IsolateSandbox) -> None:
    await ran(box, "x=1; echo kept > kept")
    limits = CodeLimits(cpu_ms=50)
    done = await box.run_code(
        CodeRequest(code="echo lost > lost; while :; do :; done", language="bash", limits=limits)
    )
    assert done.error is not None
    assert done.error.limit is LimitKind.CPU
    assert await ran(box, "echo ${x-none}; ls") == (0, "none\nkept\n", "")


async def test_memory_that_it_lacks_is_told_as_such(box: IsolateSandbox) -> None:
    double = "x=aaaaaaaaaaaaaaaa; for i in $(seq 30); do x=$x$x; done"
    code, _, stderr = await ran(box, double, scope="one")
    assert code == 1
    assert "memory limit exceeded" in stderr
    # What the interpreter itself does not bound, the kernel does.
    hold = "for i in $(seq 9); do eval \"x$i=\\$(head -c 1000000 /dev/zero | tr '\\0' x)\"; done; "
    many = (
        hold + "for i in $(seq 90); do cat <<< $x1$x2$x3$x4$x5$x6$x7$x8$x9 > f$i; done; echo ${#x9}"
    )
    done = await box.run_code(CodeRequest(code=many, language="bash", scope="two"))
    told = done.error.limit if done.error else done.value["stderr"]
    assert told is LimitKind.MEMORY or "limit" in str(told) or "exceed" in str(told), done
    assert await ran(box, "echo after", scope="two") == (0, "after\n", "")


async def test_a_workspace_that_is_full_is_told(driver: IsolateDriver) -> None:
    box = await driver.create(SandboxSpec(id="sbx_bash000003", limits=Limits(disk_mib=1)))
    code, _, stderr = await ran(box, "head -c 900000 /dev/zero > a; cp a b; echo small > c")
    assert code == 1
    assert "[not saved: /workspace/b: " in stderr
    assert "the workspace is full" in stderr
    assert await box.files.read("/workspace/c") == b"small\n"


async def test_the_tool(world: ToolWorld, box: IsolateSandbox) -> None:
    assert await world.told("bash", command="echo one > a; cat a") == ("one", False)
    assert await world.told("bash", command="x=5; cd /tmp") == ("(no output)", False)
    assert await world.told("bash", command="echo $x; pwd; false") == ("5\n/tmp\nexit code 1", True)
    assert await world.told("bash", restart=True) == ("bash session restarted", False)
    assert await world.told("bash", command="echo ${x-none}; pwd") == ("none\n/workspace", False)
    await box.files.write("/workspace/run.sh", b"#!/bin/bash\necho ran > out; cat out\n")
    assert await world.custom("run_file", path="run.sh") == ("ran", False)
    assert await world.told("read", file_path="out") == ("ran\n", False)


async def test_a_command_that_takes_too_long_is_ended(world: ToolWorld) -> None:
    text, failed = await world.told("bash", command="sleep 60", timeout_ms=200)
    assert failed
    assert text.startswith("bash: bash command timed out after 0.2s\n[the shell was ended;")
    assert await world.told("bash", command="echo again") == ("again", False)


async def test_a_shell_that_hangs_can_be_begun_anew(box: IsolateSandbox) -> None:
    await ran(box, "x=old", scope="one")
    hanging = asyncio.ensure_future(
        box.run_code(CodeRequest(code="sleep 60", language="bash", scope="one"))
    )
    await asyncio.sleep(0.1)
    assert await ran(box, "echo ${x-none}", scope="one", restart=True) == (0, "none\n", "")
    assert (await hanging).error is not None
    assert await ran(box, "echo ${x-none}", scope="one") == (0, "none\n", "")

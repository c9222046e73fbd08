"""The tools of a session in a sandbox that runs code: the stock ones, and those of isolates."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handiwork.config import ToolSettings
from handiwork.model.errors import ToolFailedError
from handiwork.model.sandbox import SandboxSpec
from handiwork.model.session import BrainSession
from handiwork.model.tool import ImageBlock, TextBlock
from handiwork.sandboxes.isolate.driver import IsolateDriver
from handiwork.tools import code
from handiwork.tools.context import ToolContext
from handiwork.tools.registry import tool
from handiwork.tools.toolset import stock
from tool_world import ToolWorld

NAMES = (
    "execute",
    "run_file",
    "cf_read",
    "cf_write",
    "cf_edit",
    "cf_grep",
    "list",
    "find",
    "delete",
)
OWN = ("add-up", "fails", "counted")
SESSION = BrainSession(
    id="sesn_1", agent_id="agent_1", agent_name="a", toolset=True, custom_tools=(*NAMES, *OWN)
)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@tool("add-up")
async def add_up(context: ToolContext, numbers: list[int], start: int = 0) -> str:
    """Add numbers up."""
    return str(sum(numbers, start))


@tool("fails")
async def fails(context: ToolContext) -> str:
    """Fail."""
    raise ToolFailedError("fails: as it always does")


class Counted:
    """How many of its calls are under way at once, at most."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def __call__(self, context: ToolContext) -> str:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02)
        self.now -= 1
        return "counted"


@pytest.fixture
async def driver(tmp_path: Path) -> AsyncIterator[IsolateDriver]:
    made = IsolateDriver(tmp_path, user_id=1 << 29 if os.geteuid() == 0 else 0)
    yield made
    for sandbox_id in await made.leftovers():
        await made.destroy(sandbox_id)


@pytest.fixture
async def world(driver: IsolateDriver) -> ToolWorld:
    registry = stock()
    for one in (add_up, fails):
        registry.add(one)
    box = await driver.create(SandboxSpec(id="sbx_tools000", env={"GREETING": "hello"}))
    settings = ToolSettings(default_timeout_seconds=20)
    return ToolWorld(box, settings, registry, session=SESSION)


async def executed(world: ToolWorld, text: str, **given: object) -> object:
    """Return what a program gave, which has logged nothing."""
    told, failed = await world.custom("execute", code=text, **given)
    assert not failed, told
    return json.loads(told)["result"]


@pytest.mark.parametrize("example", code.EXAMPLES)
async def test_what_a_model_is_shown_of_javascript_runs(world: ToolWorld, example: str) -> None:
    await world.custom("cf_write", path="one.json", content="[1]")
    assert await executed(world, example) in ([2, 4, 6], [3])


@pytest.mark.parametrize("example", code.PYTHON_EXAMPLES)
async def test_what_a_model_is_shown_of_python_runs(world: ToolWorld, example: str) -> None:
    assert await executed(world, example, language="python") == 6


async def test_a_run_tells_its_result_its_log_and_its_error(world: ToolWorld) -> None:
    told, failed = await world.custom(
        "execute", code="console.log('one'); console.warn('two'); ({ a: [1] })"
    )
    assert (json.loads(told), failed) == (
        {"result": {"a": [1]}, "logs": ["one", "[warn] two"]},
        False,
    )
    told, failed = await world.custom(
        "execute", code="console.log('one'); throw new TypeError('no')"
    )
    found = json.loads(told)
    assert (found["error"], found["logs"], failed) == ("TypeError: no", ["one"], True)
    told, failed = await world.custom("execute", code="for (;;) {}", language="ruby")
    assert failed
    assert "language" in told


async def test_what_a_run_leaves_behind_are_files_alone(world: ToolWorld) -> None:
    await executed(world, "globalThis.kept = 1; await workspace.write('/workspace/kept', 'x')")
    assert await executed(world, "[typeof kept, await workspace.read('kept')]") == [
        "undefined",
        "x",
    ]
    assert await executed(world, "process.env.GREETING") == "hello"


async def test_code_calls_the_tools_of_the_agent(world: ToolWorld) -> None:
    assert await executed(world, "await codemode.add_up({ numbers: [1, 2], start: 3 })") == "6"
    assert await executed(world, "await codemode.add_up([1, 2])") == "3"
    python = "await codemode.add_up(numbers=[1, 2])"
    assert await executed(world, python, language="python") == "3"
    caught = "try { await codemode.fails() } catch (error) { error.message }"
    assert await executed(world, caught) == "fails: as it always does"
    wrong = "try { await codemode.add_up({ number: 1 }) } catch (error) { error.message }"
    assert "add-up: invalid input" in str(await executed(world, wrong))
    for name in ("nothing", "execute", "run_file", "bash", "counted"):
        told, failed = await world.custom("execute", code=f"await codemode.{name}({{}})")
        assert failed
        assert f"codemode.{name}: there is no such tool; there are read, write" in told


async def test_calls_that_are_awaited_together_run_side_by_side(driver: IsolateDriver) -> None:
    registry, counted = stock(), Counted()
    registry.add(tool("counted", description="Count.")(counted.__call__))
    box = await driver.create(SandboxSpec(id="sbx_tools001"))
    world = ToolWorld(box, ToolSettings(), registry, session=SESSION)
    program = "(await Promise.all([1, 2, 3, 4].map(() => codemode.counted({})))).length"
    assert await executed(world, program) == 4
    assert counted.most == 4


async def test_the_workspace_as_code_has_it(world: ToolWorld) -> None:
    program = """
    const size = await codemode.write({ path: "a/b.txt", content: "one $& two\\n" });
    await codemode.edit({ path: "a/b.txt", old_string: "one", new_string: "$&$$" });
    const text = await codemode.read("a/b.txt");
    const lines = await codemode.grep({ pattern: "tw[o]" });
    const listed = await codemode.list({ path: "/workspace/a" });
    const found = await codemode.find({ pattern: "**/*.txt" });
    await codemode.delete({ path: "a", recursive: true });
    return { size, text, lines, listed, found, left: await codemode.find({ pattern: "**" }) };
    """
    assert await executed(world, program) == {
        "size": 11,
        "text": "$&$$ $& two\n",
        "lines": ["/workspace/a/b.txt:1:$&$$ $& two"],
        "listed": [{"path": "/workspace/a/b.txt", "type": "file", "size": 12}],
        "found": ["/workspace/a/b.txt"],
        "left": [],
    }


async def test_an_image_is_shown(world: ToolWorld) -> None:
    encoded = base64.b64encode(PNG).decode()
    program = f"Uint8Array.from(atob('{encoded}'), (c) => c.charCodeAt(0))"
    result = await world.call("execute", {"code": program}, custom=True)
    assert result.content == (
        TextBlock(text='{"result":"(shown below)"}'),
        ImageBlock(media_type="image/png", data=encoded),
    )


async def test_files_are_run(world: ToolWorld) -> None:
    await world.custom("cf_write", path="lib/add.js", content="export const add = (a, b) => a + b;")
    main = "import { add } from './lib/add.js';\nexport default add(1, 2);"
    await world.custom("cf_write", path="main.mjs", content=main)
    await world.custom("cf_write", path="helping.py", content="def add(a, b): return a + b")
    await world.custom("cf_write", path="main.py", content="import helping\nhelping.add(3, 4)")
    await world.custom("cf_write", path="main.rb", content="1")
    results = [
        await world.custom("run_file", path=one) for one in ("main.mjs", "/workspace/main.py")
    ]
    assert [json.loads(told)["result"] for told, _ in results] == [3, 7]
    for path, why in (("main.rb", "tells no language"), ("none.js", "none.js")):
        told, failed = await world.custom("run_file", path=path)
        assert failed
        assert why in told


async def test_the_tools_of_agents_made_for_isolates(world: ToolWorld) -> None:
    said = [
        await world.custom("cf_write", path="/notes/a.md", content="one\ntwo\ntwo\n"),
        await world.custom("cf_read", path="/notes/a.md"),
        await world.custom("cf_edit", path="/notes/a.md", old_string="one", new_string="$& three"),
        await world.custom("cf_read", path="/notes/a.md"),
        await world.custom("list", path="/notes"),
        await world.custom("list"),
        await world.custom("find", pattern="**/*.md"),
        await world.custom("cf_grep", pattern="^t"),
        await world.custom("cf_grep", pattern="t", path="/notes/*.txt"),
        await world.custom("delete", path="/notes", recursive=True),
        await world.custom("delete", path="/notes"),
        await world.custom("list", path="/workspace"),
    ]
    assert said == [
        ("wrote 12 bytes to /notes/a.md", False),
        ("one\ntwo\ntwo\n", False),
        ("edited /notes/a.md", False),
        ("$& three\ntwo\ntwo\n", False),
        ("- /notes/a.md", False),
        ("d /notes\nd /workspace", False),
        ("/notes/a.md", False),
        ("/notes/a.md:2:two\n/notes/a.md:3:two", False),
        ("(no matches)", False),
        ("deleted /notes", False),
        ("deleted /notes", False),
        ("(empty)", False),
    ]


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("cf_read", {"path": "/none"}, "error: /none: no such file"),
        (
            "cf_edit",
            {"path": "two", "old_string": "x", "new_string": ""},
            "error: old_string not found in two",
        ),
        (
            "cf_edit",
            {"path": "two", "old_string": "a", "new_string": ""},
            "error: old_string occurs 2 times in two",
        ),
        (
            "cf_edit",
            {"path": "two", "old_string": "", "new_string": ""},
            "error: old_string is empty",
        ),
        ("cf_grep", {"pattern": "("}, "error: invalid regex"),
        ("find", {"pattern": "../*"}, "is no glob pattern"),
        ("list", {"path": "/none"}, "error: /none: no such file"),
        ("list", {"limit": 501}, "error: limit: use 1 to 500"),
        ("delete", {"path": "/workspace", "recursive": True}, "error: /workspace: "),
    ],
)
async def test_what_cannot_be_done_is_an_error(
    world: ToolWorld, name: str, given: dict[str, object], why: str
) -> None:
    await world.custom("cf_write", path="two", content="a a")
    told, failed = await world.custom(name, **given)
    assert failed
    assert told.startswith("error: ")
    assert why in told


async def test_the_stock_file_tools_work_here_too(world: ToolWorld) -> None:
    assert await world.told("write", file_path="src/a.py", content="needle = 1\n") == (
        "wrote 11 bytes to src/a.py",
        False,
    )
    await world.told("edit", file_path="src/a.py", old_string="1", new_string="2")
    assert await world.told("read", file_path="src/a.py") == ("needle = 2\n", False)
    assert await world.told("glob", pattern="**/*.py") == ("/workspace/src/a.py", False)
    assert await world.told("glob", pattern="*.py") == ("no matches", False)
    assert await world.told("grep", pattern="need.e") == ("/workspace/src/a.py:1:needle = 2", False)
    assert await world.told("grep", pattern="--files") == ("no matches", False)
    assert await world.told("grep", pattern="x", path="src/a.py") == ("no matches", False)
    told, failed = await world.told("grep", pattern="(")
    assert failed
    assert told.startswith("grep: invalid regex: ")


async def test_a_regex_that_never_ends_stalls_nobody(driver: IsolateDriver) -> None:
    box = await driver.create(SandboxSpec(id="sbx_tools002"))
    world = ToolWorld(box, ToolSettings(timeout_seconds={"grep": 1.0}), session=SESSION)
    await box.files.write("/workspace/a", b"a" * 60)
    told, failed = await world.told("grep", pattern="(a|aa)+$b")
    assert (told, failed) == ("grep: timed out after 1s, its limit here", True)
    assert await world.told("grep", pattern="^a", path="a") == (f"/workspace/a:1:{'a' * 60}", False)


async def test_a_long_result_is_kept_in_the_workspace(world: ToolWorld) -> None:
    told, failed = await world.custom("execute", code="'x'.repeat(300000)")
    assert not failed
    assert "the whole is in /workspace/.tool-output/" in told
    (kept,) = await world.sandbox.files.list("/workspace/.tool-output")
    data = await world.sandbox.files.read(f"/workspace/.tool-output/{kept.name}")
    assert json.loads(data) == {"result": "x" * 300_000}

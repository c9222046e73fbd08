"""`glob` and `grep`."""

import asyncio
import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest

from handiwork.model.errors import ToolFailedError
from handiwork.model.tool import TextBlock
from handiwork.tools import search
from handiwork.tools.context import ToolContext
from handiwork.tools.registry import Tool
from handiwork.tools.search import glob, grep
from host_sandbox import HostSandbox


@pytest.fixture
def work(box: HostSandbox) -> Path:
    root = box.root / "workspace"
    for age, name in enumerate(["new.py", "src/a.py", "src/deep/b.py", ".hidden.py", "c.txt"]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\nneedle here\n")
        os.utime(path, (10_000 - age, 10_000 - age))
    (root / "out").symlink_to("/etc")
    (root / "passwd.py").symlink_to("/etc/passwd")
    (root / "again.md").symlink_to("c.txt")
    return root


async def told(tool: Tool, context: ToolContext, **given: Any) -> str:
    (block,) = await tool.call(context, given)
    assert isinstance(block, TextBlock)
    return block.text


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.py", ["new.py", ".hidden.py"]),
        ("**/*.py", ["new.py", "src/a.py", "src/deep/b.py", ".hidden.py"]),
        ("src/*", ["src/a.py", "src/deep"]),
        ("src/**/b.py", ["src/deep/b.py"]),
        ("[cn]*", ["new.py", "c.txt"]),
        ("[!c]ew.p?", ["new.py"]),
        ("*.md", ["again.md"]),
        ("*.none", []),
        ("out/*", []),
        ("[a-e]*", ["c.txt", "again.md"]),
        ("**/**/d*/*b*.*y", ["src/deep/b.py"]),
        ("**/deep/**", ["src/deep/b.py"]),
        ("*[--/&&^]*", []),
    ],
)
async def test_glob(context: ToolContext, work: Path, pattern: str, expected: list[str]) -> None:
    found = await told(glob, context, pattern=pattern)
    paths = [] if found == "no matches" else found.split("\n")
    assert sorted(paths) == sorted(f"/workspace/{name}" for name in expected)


async def test_glob_is_newest_first_and_limited(
    context: ToolContext, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "GLOB_RESULTS", 2)
    assert await told(glob, context, pattern="**/*.py") == (
        "/workspace/new.py\n/workspace/src/a.py"
    )
    assert await told(glob, context, pattern="*.py", path="src") == "/workspace/src/a.py"


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"pattern": "/etc/*"}, "glob: absolute pattern not permitted"),
        ({"pattern": "../*"}, "glob: '..' is not permitted in the pattern"),
        ({"pattern": ""}, "glob: the pattern is empty"),
        ({"pattern": "[z-a]"}, "glob: the pattern is malformed"),
        ({"pattern": "a" * 1025}, "glob: the pattern has over 1024 characters"),
        ({"pattern": "*", "path": "/etc"}, "glob: path '/etc' is outside the session's"),
        ({"pattern": "*", "path": "out"}, "glob: path 'out' is outside the session's"),
    ],
)
async def test_glob_refuses(
    context: ToolContext, work: Path, given_: dict[str, str], message: str
) -> None:
    with pytest.raises(ToolFailedError, match=re.escape(message)):
        await told(glob, context, **given_)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("*a" * 500 + "b", "a" * 255),
        ("**/a/" * 200 + "b", "a/" * 60 + "c"),
        ("**/*a*a*a/" * 50 + "b", "aaaaaaaa/" * 60 + "c"),
    ],
)
async def test_a_pattern_made_to_be_slow_holds_nobody_up(
    context: ToolContext, work: Path, pattern: str, name: str
) -> None:
    """Matched by trying again what lies before a star, it would take years."""
    path = work / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert await told(glob, context, pattern=pattern) == "no matches"


async def test_glob_ends_in_time_and_lets_others_run_meanwhile(
    context: ToolContext, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_MATCHING_SECONDS", 0)
    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            await asyncio.sleep(0)
            ran += 1

    beside = asyncio.create_task(other())
    entries = [search.Entry(0, "/workspace/a", False)] * 1000
    try:
        assert len(await search._matching(entries, re.compile("a"), "/workspace")) == 1000
    finally:
        beside.cancel()
    assert ran >= 900


@pytest.mark.parametrize("with_rg", [True, False])
async def test_grep(
    context: ToolContext, work: Path, monkeypatch: pytest.MonkeyPatch, with_rg: bool
) -> None:
    if not with_rg:
        monkeypatch.setattr(search, "_GREP", search._GREP.replace("command -v rg", "false"))
    (work / "bin").write_bytes(b"\0needle")
    found = (await told(grep, context, pattern="need.e")).split("\n")
    assert "/workspace/src/a.py:2:needle here" in found
    assert not any("bin" in line or "/out/" in line for line in found)
    one = await told(grep, context, pattern="^#", path="c.txt")
    assert one == "/workspace/c.txt:1:# c.txt"
    assert await told(grep, context, pattern="nothing like it") == "no matches"
    with pytest.raises(ToolFailedError, match="grep: "):
        await told(grep, context, pattern="(")
    with pytest.raises(ToolFailedError, match="outside the session's working directory"):
        await told(grep, context, pattern="root", path="passwd.py")


async def test_much_that_grep_finds_is_kept(
    context: ToolContext, work: Path, box: HostSandbox
) -> None:
    (work / "many").write_text("needle\n" * 50_000)
    found = await told(grep, context, pattern="needle", path="many")
    assert found.startswith("/workspace/many:1:needle\n")
    assert found.endswith("/workspace/many:50000:needle")
    assert len(found) < 50_000
    kept = (box.root / "workspace/.tool-output/sevt_1").read_text()
    assert kept.count("\n") == 50_000


async def test_grep_that_takes_too_long_is_ended(
    context: ToolContext, work: Path, box: HostSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_GREP", "seq 1000; sleep 60")
    short = dataclasses.replace(context, timeout_seconds=3)
    with pytest.raises(ToolFailedError, match=r"^grep: timed out after 3s, its limit here\n1\n2\n"):
        await told(grep, short, pattern="x")
    assert (await box.started[0].wait()).exit_code == 137


async def test_cancelling_grep_ends_it(
    context: ToolContext, work: Path, box: HostSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_GREP", "sleep 60")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await told(grep, context, pattern="x")
    assert (await box.started[0].wait()).exit_code == 137

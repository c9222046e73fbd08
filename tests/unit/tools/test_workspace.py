"""File tools by other names: which files are meant, and the words that they answer with."""

import pytest

from code_context import context_in
from handiwork.model.errors import ToolFailedError
from handiwork.model.sandbox import SandboxSpec
from handiwork.testing.sandbox import FakeDriver
from handiwork.tools import workspace
from handiwork.tools.context import ToolContext


@pytest.fixture
async def context() -> ToolContext:
    box = await FakeDriver().create(SandboxSpec(id="sbx_one00000001"))
    for path in ("a.md", "b/c.md", "b/d.txt"):
        await box.files.write(f"/workspace/{path}", b"text\n")
    return context_in(box)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("*.md", ["a.md"]),
        ("**/*.md", ["a.md", "b/c.md"]),
        ("b/*", ["b/c.md", "b/d.txt"]),
        ("/workspace/b/*.txt", ["b/d.txt"]),
        ("/workspace/none/*", []),
        ("b", []),
    ],
)
async def test_a_pattern_is_of_the_workspace_unless_it_is_absolute(
    context: ToolContext, pattern: str, found: list[str]
) -> None:
    assert await workspace.found_by(context, pattern) == [f"/workspace/{one}" for one in found]


@pytest.mark.parametrize("pattern", ["", "/", "../x", "a\0b", "x" * 1025, "a/../b"])
async def test_what_is_no_pattern_is_refused(context: ToolContext, pattern: str) -> None:
    with pytest.raises(ToolFailedError, match="is no glob pattern"):
        await workspace.found_by(context, pattern)


async def test_no_more_are_found_than_are_told(context: ToolContext, monkeypatch) -> None:
    monkeypatch.setattr(workspace, "FOUND", 2)
    assert len(await workspace.found_by(context, "**")) == 2


async def test_a_long_text_is_cut_and_says_so(context: ToolContext, monkeypatch) -> None:
    monkeypatch.setattr(workspace, "READ_CHARACTERS", 3)
    monkeypatch.setattr(workspace, "READ_BYTES", 12)
    assert await workspace.text_of(context, "a.md") == (
        "tex\n[the first 3 characters; there is more]"
    )
    await workspace.write_text(context, "é", "é" * 20)
    assert (await workspace.text_of(context, "é")).startswith("ééé\n[the first 3")
    with pytest.raises(ToolFailedError, match="over 12 bytes"):
        await workspace.edit_text(context, "é", "é", "e")


async def test_what_is_no_text_is_said_to_be_none(context: ToolContext) -> None:
    await context.sandbox.files.write("/workspace/raw", b"\xff")
    for attempt in (
        workspace.text_of(context, "raw"),
        workspace.edit_text(context, "raw", "a", "b"),
    ):
        with pytest.raises(ToolFailedError, match="error: raw: it is no UTF-8 text"):
            await attempt


async def test_an_edit_takes_every_letter_as_it_is(context: ToolContext) -> None:
    await workspace.write_text(context, "a", "one $1 \\1")
    await workspace.edit_text(context, "a", "$1", "$& $$ \\g<0>")
    assert await workspace.text_of(context, "a") == "one $& $$ \\g<0> \\1"


async def test_what_is_not_there_is_deleted(context: ToolContext) -> None:
    await workspace.remove(context, "none", recursive=False)
    with pytest.raises(ToolFailedError, match="error: b: directory not empty"):
        await workspace.remove(context, "b", recursive=False)
    await workspace.remove(context, "b", recursive=True)
    assert await workspace.found_by(context, "b/**") == []

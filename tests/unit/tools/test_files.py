"""The file tools: the words of the stock toolset, and that they stay in /workspace."""

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import ToolFailedError
from handiwork.model.tool import Block, DocumentBlock, ImageBlock, TextBlock
from handiwork.tools import files
from handiwork.tools.context import ToolContext
from handiwork.tools.files import edit, read, write
from handiwork.tools.registry import Tool
from host_sandbox import HostFiles, HostSandbox

BIG = 256 * 1024 + 1
GIF = b"GIF89a\1\0\1\0\0\0\0;"


@pytest.fixture
def work(box: HostSandbox) -> Path:
    return box.root / "workspace"


async def one(tool: Tool, context: ToolContext, given: Mapping[str, Any]) -> Block:
    (block,) = await tool.call(context, given)
    return block


async def text(tool: Tool, context: ToolContext, **given: Any) -> str:
    block = await one(tool, context, given)
    assert isinstance(block, TextBlock)
    return block.text


async def error(tool: Tool, context: ToolContext, **given: Any) -> str:
    with pytest.raises(ToolFailedError) as failed:
        await tool.call(context, given)
    return str(failed.value)


async def test_write_then_read(context: ToolContext, work: Path) -> None:
    assert await text(write, context, file_path="a/b.txt", content="one\ntwo\n\u00e9") == (
        "wrote 9 bytes to a/b.txt"
    )
    assert (work / "a/b.txt").read_text() == "one\ntwo\n\u00e9"
    assert await text(read, context, file_path="/workspace/a/../a/b.txt") == "one\ntwo\n\u00e9"


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        ([1, 1], "a"),
        ([2, 3], "b\nc"),
        ([2, 0], "b\nc\n"),
        ([2, -1], "b\nc\n"),
        ([0, 2], "a\nb"),
        ([9, 12], "(no output)"),
        ([3, 2], "(no output)"),
    ],
)
async def test_view_range(context: ToolContext, work: Path, view: list[int], expected: str) -> None:
    (work / "f").write_text("a\nb\nc\n")
    assert await text(read, context, file_path="f", view_range=view) == expected


async def test_lines_of_a_long_file_are_looked_at_in_pieces(
    context: ToolContext, work: Path
) -> None:
    """Millions of lines that nobody asked for are counted, and the pieces fit together."""
    many = 3_000_000
    (work / "f").write_bytes(b"\n" * many + b"the last")
    pieces = [
        piece async for piece in files._whole_lines(context.sandbox.files, "/workspace/f", "f")
    ]
    assert len(pieces) <= 5
    assert b"\n".join(pieces) == (work / "f").read_bytes()
    at = many + 1
    assert await text(read, context, file_path="f", view_range=[at, at]) == "the last"
    assert await text(read, context, file_path="f", view_range=[at - 2, at]) == "\n\nthe last"


@given(
    st.binary(max_size=60).map(lambda data: data.replace(b"a", b"\n").decode("latin-1")),
    st.integers(-2, 12),
    st.integers(-2, 12),
    st.integers(1, 7),
)
async def test_a_range_is_that_of_all_lines(whole: str, first: int, last: int, chunk: int) -> None:
    class Held(HostFiles):
        async def read(
            self, path: str, *, offset: int = 0, limit_bytes: int | None = None
        ) -> bytes:
            return whole.encode()[offset : offset + chunk]

    expected = whole.split("\n")[max(0, first - 1) : last if last > 0 else None]
    assert await files._lines(Held(Path("/")), "/f", "f", first, last) == "\n".join(expected)


async def test_a_large_file_is_read_by_range_only(context: ToolContext, work: Path) -> None:
    (work / "f").write_text("first\n" + "x" * BIG + "\nlast line\n")
    assert await error(read, context, file_path="f") == (
        f"read: f is {BIG + 17} bytes, exceeds 262144-byte limit. "
        "Use the view_range parameter to read specific line ranges, e.g. view_range: [1, 500]."
    )
    assert await text(read, context, file_path="f", view_range=[3, 3]) == "last line"
    assert "exceed 262144-byte limit" in await error(
        read, context, file_path="f", view_range=[2, 2]
    )
    assert await error(read, context, file_path="f", view_range=[1]) == (
        "read: view_range must be [start_line, end_line]"
    )


async def test_images_and_documents_are_blocks(context: ToolContext, work: Path) -> None:
    (work / "p.PNG").write_bytes(GIF)
    (work / "d.pdf").write_bytes(b"%PDF-")
    coded = base64.b64encode
    assert await one(read, context, {"file_path": "p.PNG"}) == ImageBlock(
        media_type="image/gif", data=coded(GIF).decode()
    )
    assert await one(read, context, {"file_path": "d.pdf"}) == DocumentBlock(
        media_type="application/pdf", data=coded(b"%PDF-").decode()
    )
    assert await error(read, context, file_path="d.pdf", view_range=[1, 2]) == (
        "read: view_range is not supported for image/PDF files"
    )
    os.truncate(work / "p.PNG", 4 << 20)
    assert "for image/PDF files" in await error(read, context, file_path="p.PNG")


async def test_what_is_no_text_file(context: ToolContext, work: Path) -> None:
    (work / "bin").write_bytes(b"\xff\xfe\x00")
    os.mkfifo(work / "pipe")
    assert await error(read, context, file_path="bin") == (
        "read: bin: not valid UTF-8 text (binary files are only supported for image/PDF extensions)"
    )
    assert await error(edit, context, file_path="bin", old_string="a", new_string="b") == (
        "edit: bin: not valid UTF-8 text (cannot edit binary files)"
    )
    for tool, more in ((read, {}), (write, {"content": "x"})):
        for path in ("pipe", "."):
            given = {"file_path": path, **more}
            what = "is a directory" if (tool, path) == (write, ".") else "not a regular file"
            assert await error(tool, context, **given) == f"{tool.name}: {path}: {what}"
    assert await error(read, context, file_path="none") == "read: none: no such file or directory"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "/workspace/../etc/passwd",
        "/workspacex",
        "leaf",
        "dangling",
        "up/etc/passwd",
        "up/new/file",
        "inner/../../up",
    ],
)
async def test_paths_outside_are_refused(context: ToolContext, work: Path, path: str) -> None:
    (work / "leaf").symlink_to("/etc/passwd")
    (work / "dangling").symlink_to("/etc/none")
    (work / "up").symlink_to("..")
    expected = f"path {path!r} is outside the session's working directory"
    assert await error(read, context, file_path=path) == f"read: {expected}"
    assert await error(write, context, file_path=path, content="x") == f"write: {expected}"
    assert await error(edit, context, file_path=path, old_string="a", new_string="b") == (
        f"edit: {expected}"
    )


async def test_links_inside_are_followed(context: ToolContext, work: Path) -> None:
    (work / "real").mkdir()
    (work / "link").symlink_to("real")
    (work / "loop").symlink_to("loop")
    await text(write, context, file_path="link/new/f", content="x")
    assert (work / "real/new/f").read_text() == "x"
    assert "loop" in await error(read, context, file_path="loop")
    for path in ("", "a\0b", "x" * 5000):
        assert "not a valid path" in await error(read, context, file_path=path)


async def test_edit(context: ToolContext, work: Path) -> None:
    file = work / "f.txt"
    file.write_text("a b a a")
    file.chmod(0o755)
    given: dict[str, Any] = {"file_path": "f.txt", "new_string": "X"}
    assert await error(edit, context, old_string="z", **given) == (
        "edit: old_string not found in f.txt"
    )
    assert await error(edit, context, old_string="a", **given) == (
        "edit: old_string appears 3 times in f.txt (must be unique)"
    )
    assert "must not be empty" in await error(edit, context, old_string="", **given)
    assert await text(edit, context, old_string="b", **given) == "edited f.txt (1 replacement(s))"
    assert await text(edit, context, old_string="a", replace_all=True, **given) == (
        "edited f.txt (3 replacement(s))"
    )
    assert file.read_text() == "X X X X"
    assert file.stat().st_mode & 0o777 == 0o755
    file.write_text("x" * BIG)
    assert "cannot modify a file this large" in await error(edit, context, old_string="x", **given)

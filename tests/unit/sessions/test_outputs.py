"""Outputs are plain files below one directory; nothing else is told or given out."""

import os
from pathlib import Path

import pytest

from handiwork.model.errors import NotFoundError
from handiwork.sessions.outputs import list_outputs, read_output
from host_sandbox import HostFiles


@pytest.fixture
def files(tmp_path: Path) -> HostFiles:
    place = tmp_path / "workspace/outputs"
    (place / "sub").mkdir(parents=True)
    (place / "report.md").write_text("done")
    (place / "sub/data.bin").write_bytes(b"\0\1")
    (place / "link").symlink_to("/workspace/secret")
    (place / "up").symlink_to("..")
    os.mkfifo(place / "pipe")
    (place / os.fsdecode(b"\xff")).write_text("x")
    (tmp_path / "workspace/secret").write_text("not an output")
    return HostFiles(tmp_path)


async def test_plain_files_are_told(files: HostFiles) -> None:
    found = await list_outputs(files)
    assert [(one.path, one.size) for one in found] == [("report.md", 4), ("sub/data.bin", 2)]
    assert await list_outputs(HostFiles(files.root / "nowhere")) == ()


async def test_and_given_out(files: HostFiles) -> None:
    assert await read_output(files, "sub/data.bin") == b"\0\1"


@pytest.mark.parametrize(
    "path",
    ["../secret", "", "/", "sub", "none", "link", "pipe", "up/secret", "sub/../report.md", "a\0b"],
)
async def test_what_is_no_output(files: HostFiles, path: str) -> None:
    with pytest.raises(NotFoundError, match="no output"):
        await read_output(files, path)

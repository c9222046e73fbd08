"""What is below a directory of a sandbox, within limits."""

import os
from pathlib import Path

import pytest

from handiwork.model.errors import HandiworkError
from handiwork.sessions.walk import walk
from host_sandbox import HostFiles


@pytest.fixture
def files(tmp_path: Path) -> HostFiles:
    for path in ("top/b/c.txt", "top/a.txt"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(path)
    (tmp_path / "top/link").symlink_to("/etc")
    return HostFiles(tmp_path)


async def test_files_and_links_are_told_and_links_not_followed(files: HostFiles) -> None:
    found = await walk(files, "/top")
    assert [one.path for one in found or []] == ["a.txt", "b/c.txt", "link"]


async def test_a_directory_that_is_none(files: HostFiles) -> None:
    assert await walk(files, "/nowhere") is None
    assert await walk(files, "/top/a.txt") is None
    assert await walk(files, "/top/link") is None


async def test_more_than_the_limits_is_not_told_in_part(files: HostFiles) -> None:
    with pytest.raises(HandiworkError, match="more than 2 files"):
        await walk(files, "/top", entries=2)
    with pytest.raises(HandiworkError, match="too deep"):
        await walk(files, "/top", depth=0)


async def test_a_name_that_is_no_text(files: HostFiles, tmp_path: Path) -> None:
    (tmp_path / "top" / os.fsdecode(b"\xff")).write_text("x")
    found = await walk(files, "/top")
    assert [one.is_named for one in found or []].count(False) == 1

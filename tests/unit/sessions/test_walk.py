"""What is below a directory of a sandbox, within limits."""

import itertools
import os
from pathlib import Path

import pytest

from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import FileInfo
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
    with pytest.raises(HandiworkError, match="more than 3 files and directories"):
        await walk(files, "/top", entries=3)
    assert await walk(files, "/top", entries=4)
    with pytest.raises(HandiworkError, match="too deep"):
        await walk(files, "/top", depth=0)


async def test_directories_alone_do_not_keep_it_busy(tmp_path: Path) -> None:
    class Counting(HostFiles):
        listed = 0

        async def list(self, path: str, *, limit: int = 10_000) -> list[FileInfo]:
            self.listed += 1
            return await super().list(path, limit=limit)

    for path in itertools.product("abcd", repeat=4):
        tmp_path.joinpath("top", *path).mkdir(parents=True)
    files = Counting(tmp_path)
    with pytest.raises(HandiworkError, match="more than 20 files and directories"):
        await walk(files, "/top", entries=20)
    assert files.listed <= 20


async def test_a_name_that_is_no_text(files: HostFiles, tmp_path: Path) -> None:
    (tmp_path / "top" / os.fsdecode(b"\xff")).write_text("x")
    found = await walk(files, "/top")
    assert [one.is_named for one in found or []].count(False) == 1

"""A guest's tree is hostile: whatever it says, nothing is written outside of the target."""

import contextlib
import itertools
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.client import transfer
from handiwork.client.transfer import Download, is_name, upload
from handiwork.model.errors import ConfigError, HandiworkError
from handiwork.model.sandbox import FileInfo, FileKind

HOSTILE = ["", ".", "..", "/", "/etc/passwd", "../escaped", "a/b", "a\0b", "x" * 256, "\ud800"]


def entry(name: str, kind: FileKind = FileKind.FILE, mode: int = 0o644) -> FileInfo:
    return FileInfo(name=name, kind=kind, mode=mode, size=1, mtime_ns=0, uid=0, gid=0)


class Guest:
    """A guest that says what it is told to say."""

    def __init__(self, entries: dict[str, list[FileInfo]], data: bytes = b"x") -> None:
        self.entries = entries
        self.data = data

    @contextlib.asynccontextmanager
    async def read_stream(self, path: str) -> AsyncIterator[AsyncIterator[bytes]]:
        yield self.pieces()

    async def pieces(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.data), 10):
            yield self.data[at : at + 10]

    async def list(self, path: str, *, limit: int = 10_000) -> list[FileInfo]:
        return self.entries.get(path, [])[:limit]

    async def write_stream(
        self, path: str, pieces: AsyncIterable[bytes], *, mode: int = 0o644
    ) -> None:
        raise AssertionError

    async def mkdir(self, path: str) -> None:
        raise AssertionError


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("kind", [FileKind.FILE, FileKind.DIRECTORY])
async def test_a_name_that_is_none_is_left_out_and_told(
    tmp_path: Path, name: str, kind: FileKind
) -> None:
    guest = Guest({"/w": [entry(name, kind), entry("good")]})
    result = await Download(guest).run("/w", tmp_path / "target")
    assert tree(tmp_path) == {"target", "target/good"}
    assert result.skipped == (f"/w/{name}",)


@given(st.text() | st.sampled_from(HOSTILE))
def test_a_name_stays_in_its_directory(name: str) -> None:
    if is_name(name):
        assert os.path.normpath(f"/base/{name}") == f"/base/{name}"


@pytest.mark.parametrize("kind", [FileKind.LINK, FileKind.OTHER])
async def test_links_and_special_files_are_left_out(tmp_path: Path, kind: FileKind) -> None:
    result = await Download(Guest({"/w": [entry("x", kind)]})).run("/w", tmp_path)
    assert (tree(tmp_path), result.skipped) == (set(), ("/w/x",))


async def test_a_link_in_the_target_is_not_written_through(tmp_path: Path) -> None:
    outside, target = tmp_path / "outside", tmp_path / "target"
    outside.mkdir()
    target.mkdir()
    (outside / "file").write_bytes(b"mine")
    (target / "file").symlink_to(outside / "file")
    (target / "sub").symlink_to(outside)
    await Download(Guest({"/w": [entry("file")]})).run("/w", target)
    assert (outside / "file").read_bytes() == b"mine"
    assert (target / "file").read_bytes() == b"x"
    guest = Guest({"/w": [entry("sub", FileKind.DIRECTORY)], "/w/sub": [entry("file")]})
    with pytest.raises(OSError, match="sub"):
        await Download(guest).run("/w", target)
    assert (outside / "file").read_bytes() == b"mine"


async def test_one_name_as_directory_and_link_does_not_escape(tmp_path: Path) -> None:
    guest = Guest(
        {
            "/w": [entry("a", FileKind.LINK), entry("a", FileKind.DIRECTORY), entry("a")],
            "/w/a": [entry("b")],
        }
    )
    with pytest.raises(OSError):
        await Download(guest).run("/w", tmp_path / "target")
    assert tree(tmp_path) == {"target", "target/a", "target/a/b"}


async def test_no_special_bits_come_out(tmp_path: Path) -> None:
    await Download(Guest({"/w": [entry("x", mode=0o6777)]})).run("/w", tmp_path)
    assert (tmp_path / "x").stat().st_mode & 0o7000 == 0


async def test_an_endless_tree_ends(tmp_path: Path) -> None:
    class Endless(Guest):
        async def list(self, path: str, *, limit: int = 10_000) -> list[FileInfo]:
            return [entry("d", FileKind.DIRECTORY)]

    with pytest.raises(HandiworkError, match="too deep"):
        await Download(Endless({})).run("/w", tmp_path)


async def test_an_endless_file_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MAX_BYTES", 1000)

    class Endless(Guest):
        async def pieces(self) -> AsyncIterator[bytes]:
            for _ in itertools.count():
                yield b"x" * 10

    with pytest.raises(HandiworkError, match="more than 1000 bytes"):
        await Download(Endless({"/w": [entry("x")]})).run("/w", tmp_path)


@given(size=st.integers(0, 40))
async def test_a_file_comes_whole_in_pieces(size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = bytes(range(size))
        await Download(Guest({"/w": [entry("x")]}, data)).run("/w", Path(folder))
        assert (Path(folder) / "x").read_bytes() == data


async def test_what_is_no_directory_is_not_uploaded(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for source in (tmp_path / "file", tmp_path / "none"):
        with pytest.raises(ConfigError, match="not a directory"):
            await upload(Guest({}), source, "/w")

"""Long outputs are kept in the sandbox, within limits, and what is not kept is told."""

import os
from pathlib import Path

import pytest

from handiwork.model.tool import Block, ImageBlock, TextBlock
from handiwork.tools import spool as module
from handiwork.tools.excerpt import TEXT_LIMIT
from handiwork.tools.spool import DIRECTORY, Collector, Spool, within_limit
from host_sandbox import HostSandbox


@pytest.fixture
def kept(box: HostSandbox) -> Path:
    return box.root / "workspace/.tool-output"


async def collected(box: HostSandbox, *chunks: bytes, limit: int = 1 << 20) -> str:
    one = Collector(Spool(box, limit), "sevt_1")
    for chunk in chunks:
        await one.take(chunk)
    return await one.text()


async def test_a_short_output_leaves_no_file(box: HostSandbox, kept: Path) -> None:
    assert await collected(box, b"one\n", b"two\n") == "one\ntwo"
    assert not kept.exists()


@pytest.mark.parametrize("size", [TEXT_LIMIT + 1, 700_000])
async def test_a_long_one_is_kept_whole(box: HostSandbox, kept: Path, size: int) -> None:
    data = b"first" + b"\xff\0" * (size // 2) + b"last"
    told = await collected(box, *(data[at : at + 9999] for at in range(0, len(data), 9999)))
    assert (kept / "sevt_1").read_bytes() == data
    assert told.startswith("first")
    assert told.endswith("last")
    assert f"{len(data)} bytes in all" in told
    assert f"the whole is in {DIRECTORY}/sevt_1" in told
    assert len(told) < TEXT_LIMIT


async def test_past_the_limit_the_beginning_is_kept(box: HostSandbox, kept: Path) -> None:
    told = await collected(box, *[b"x" * 50_000] * 40, b"last", limit=500_000)
    assert (kept / "sevt_1").stat().st_size == 500_000
    assert "2000004 bytes in all, of which the beginning and the end are shown; " in told
    assert f"the first 500000 bytes are in {DIRECTORY}/sevt_1" in told
    assert told.endswith("last")


@pytest.mark.parametrize("how", ["file", "link", "no program"])
async def test_what_cannot_be_kept_is_told(
    box: HostSandbox, kept: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "file":
        kept.write_text("mine")
    elif how == "link":
        kept.symlink_to("src")
    else:
        monkeypatch.setattr(module, "_WRITE", "exit 3")
    told = await collected(box, *[b"x" * 200_000] * 20)
    assert "the rest could not be kept in /workspace/.tool-output/sevt_1: " in told
    if how == "file":
        assert kept.read_text() == "mine"


async def test_a_sandbox_that_takes_no_byte_holds_up_nothing(
    box: HostSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WRITE", "sleep 60")
    monkeypatch.setattr(module, "WRITE_SECONDS", 0.2)
    told = await collected(box, *[b"x" * 400_000] * 20, b"last", limit=64 << 20)
    assert "could not be kept" in told
    assert told.endswith("last")
    assert (await box.started[0].wait()).exit_code == 137


async def test_the_oldest_files_make_room(
    box: HostSandbox, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FILES_LIMIT", 4)
    kept.mkdir()
    for age in range(6):
        (kept / f"old{age}").write_text("x")
        os.utime(kept / f"old{age}", (10_000 - age, 10_000 - age))
    (kept / "directory").mkdir()
    spool = Spool(box, 100)
    spool.pinned.add("old5")
    await spool.keep("new", "y" * 30)
    assert {path.name for path in kept.iterdir()} == {
        *("old0", "old1", "old2", "old5", "new", "directory")
    }


async def test_files_make_room_for_bytes(box: HostSandbox, kept: Path) -> None:
    spool = Spool(box, 100)
    for number in range(6):
        await spool.keep(f"one{number}", "y" * 100)
        os.utime(kept / f"one{number}", (10_000 + number, 10_000 + number))
    assert sum(path.stat().st_size for path in kept.iterdir()) <= 400
    assert (kept / "one5").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "x" * 101, "a\nb", "\udc80"])
def test_an_odd_name_stays_in_the_directory(box: HostSandbox, name: str) -> None:
    path = Spool(box).path(name)
    assert path.startswith(DIRECTORY + "/")
    assert path.count("/") == 3
    assert len(path) < 200


async def test_texts_of_any_tool_are_kept_within_the_limit(box: HostSandbox, kept: Path) -> None:
    image = ImageBlock(media_type="image/png", data="")
    short: tuple[Block, ...] = (TextBlock(text="x" * TEXT_LIMIT), image)
    assert await within_limit(short, Spool(box), "sevt_1") == short
    long = (TextBlock(text="a" * TEXT_LIMIT), image, TextBlock(text="z"))
    told, rest = await within_limit(long, Spool(box), "sevt_1")
    assert isinstance(told, TextBlock)
    assert rest == image
    assert told.text.startswith("aaa")
    assert told.text.endswith("\nz")
    assert (kept / "sevt_1").read_text() == "a" * TEXT_LIMIT + "\nz"

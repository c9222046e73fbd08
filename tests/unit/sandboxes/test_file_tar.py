"""Trees out of and into a sandbox that runs no tar, by its files alone."""

import asyncio
import errno
import io
import os
import tarfile
from collections.abc import AsyncIterator

import pytest

from handiwork.model.errors import ConfigError, GuestError
from handiwork.model.sandbox import SandboxSpec, TreeReport
from handiwork.sandboxes.isolate.sandbox import IsolateSandbox
from handiwork.sandboxes.isolate.workspace import Quota, Workspace
from handiwork.sandboxes.tree_streams import pack, unpack
from image_archives import directory, entry, link, tar


@pytest.fixture
async def box(tmp_path) -> AsyncIterator[IsolateSandbox]:
    async def take(language):
        raise AssertionError("no code is run")

    workspace = Workspace(tmp_path / "w.db", Quota(bytes=4 << 20))
    made = IsolateSandbox(
        SandboxSpec(id="sbx_one00000001"), lambda: workspace, take, runs_at_once=1
    )
    yield made
    made.close()


async def packed(box, path):
    pieces = [piece async for piece in pack(box, path)]
    assert isinstance(pieces[-1], TreeReport)
    return b"".join(pieces[:-1])


async def in_pieces(data, step=1000):
    for at in range(0, len(data), step):
        yield data[at : at + step]


def members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            one.name: (one.mode, archive.extractfile(one).read() if one.isreg() else None)
            for one in archive
        }


@pytest.mark.parametrize("step", [1, 511, 100_000])
async def test_what_comes_out_goes_in_again(box, step):
    long = "long" * 40
    await box.files.write("/workspace/d/big", os.urandom(300_001), mode=0o755)
    await box.files.write(f"/workspace/d/ü/{long}", b"x" * 512)
    await box.files.write("/workspace/d/empty", b"")
    out = await packed(box, "/workspace/d")
    assert members(out) == {
        ".": (0o755, None),
        "./big": (0o755, await box.files.read("/workspace/d/big")),
        "./empty": (0o644, b""),
        "./ü": (0o755, None),
        f"./ü/{long}": (0o644, b"x" * 512),
    }
    report = await unpack(box, "/workspace/copy", in_pieces(out, step))
    assert (report.entries, report.notes) == (5, "")
    assert members(await packed(box, "/workspace/copy")) == members(out)
    assert members(await packed(box, "/workspace/d/empty")) == {"./empty": (0o644, b"")}


async def test_links_are_left_out_and_named(box):
    data = tar(directory("a"), link("a/l", "/etc/passwd"), entry("a/f", b"x"))
    report = await unpack(box, "/workspace", in_pieces(data))
    assert report.notes == "a/l: a sandbox of this tier has no links"
    assert [one.name for one in await box.files.list("/workspace/a")] == ["f"]


async def test_what_has_no_room_leaves_no_part_of_a_file(box):
    data = tar(entry("a", b"1"), entry("b", bytes(5 << 20)))
    with pytest.raises(GuestError, match="the workspace is full") as raised:
        await unpack(box, "/workspace", in_pieces(data, 1 << 16))
    assert raised.value.errno == errno.EDQUOT
    assert [one.name for one in await box.files.list("/workspace")] == ["a"]
    assert box.workspace().used_bytes < 4096


async def test_an_archive_that_is_cut_short_leaves_no_part_of_a_file(box):
    data = tar(entry("a", b"1"), entry("b", bytes(100_000)))
    with pytest.raises(ConfigError, match="cut short"):
        await unpack(box, "/workspace", in_pieces(data[:50_000]))
    assert [one.name for one in await box.files.list("/workspace")] == ["a"]


async def test_who_is_cancelled_leaves_no_part_of_a_file(box):
    waits = asyncio.Event()

    async def never():
        yield tar(entry("b", bytes(100_000)))[:50_000]
        waits.set()
        await asyncio.Event().wait()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(unpack(box, "/workspace", never()))
        await waits.wait()
        task.cancel()
    assert await box.files.list("/workspace") == []


@pytest.mark.parametrize("name", ["../x", "/x"])
async def test_a_name_that_leads_out_is_refused(box, name):
    with pytest.raises(ConfigError):
        await unpack(box, "/workspace", in_pieces(tar(entry(name, b"x"))))
    assert await box.files.list("/workspace") == []


async def test_what_is_not_there_is_told(box):
    with pytest.raises(GuestError):
        await packed(box, "/workspace/none")

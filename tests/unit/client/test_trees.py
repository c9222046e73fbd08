"""Trees by the client: to a file whole or not at all, from a file, by files that are open."""

import io
import tarfile

import msgspec
import pytest

from api_stand_in import Served
from handiwork import Handiwork
from handiwork.client.trees import _written
from handiwork.model.errors import ConfigError, GuestError, SandboxUnavailableError
from handiwork.model.wire import TreeFrame
from image_archives import entry, tar


@pytest.fixture
async def box(hw: Handiwork):
    return await hw.sandboxes.create()


@pytest.fixture
def files(served: Served, box):
    return served.sandboxes.live[box.id].files


async def test_out_to_a_new_file(box, files, tmp_path):
    files.content = {"/workspace": None, "/workspace/f": b"x" * 100_000, "/workspace/p|": b""}
    report = await box.files.get_tree("/workspace", tmp_path / "tree.tar")
    with tarfile.open(tmp_path / "tree.tar") as archive:
        assert archive.extractfile("./workspace/f").read() == b"x" * 100_000
    assert report.skipped == ("./workspace/p|: a FIFO",)


async def test_out_to_an_open_file(box, files):
    files.content["/workspace/f"] = b"x"
    out = io.BytesIO()
    await box.files.get_tree("/workspace", out)
    out.seek(0)
    with tarfile.open(fileobj=out) as archive:
        assert "./workspace/f" in archive.getnames()


async def test_what_is_not_whole_leaves_no_file(served, box, files, tmp_path):
    files.content["/workspace/f"] = b"x" * 100_000
    served.sandboxes.live[box.id].tar_code = 2
    with pytest.raises(GuestError):
        await box.files.get_tree("/workspace", tmp_path / "tree.tar")
    assert list(tmp_path.glob("*tree.tar*")) == []


async def test_a_transfer_that_is_cut_is_refused_by_readers(monkeypatch):
    async def cut():
        yield msgspec.json.encode(TreeFrame(data=tar(entry("a", b"x"))[:1024])) + b"\n"

    out = io.BytesIO()
    with pytest.raises(SandboxUnavailableError, match="cut short"):
        await _written(out, cut())
    with pytest.raises(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(out.getvalue())) as read:
        read.getnames()


async def test_a_cut_within_a_file_is_left_as_it_is():
    async def cut():
        piece = tar(entry("a", b"x" * 1024))[:1024]
        yield msgspec.json.encode(TreeFrame(data=piece, inside=True)) + b"\n"

    out = io.BytesIO()
    with pytest.raises(SandboxUnavailableError, match="cut short"):
        await _written(out, cut())
    assert len(out.getvalue()) == 1024


async def test_limits_go_along(box, files):
    files.content["/workspace/f"] = b"x" * 100_000
    with pytest.raises(GuestError, match="more than 1000 bytes"):
        await box.files.get_tree("/workspace", io.BytesIO(), limit_bytes=1000)
    source = io.BytesIO(tar(entry("a"), entry("b")))
    with pytest.raises(ConfigError, match="more than 1 entries"):
        await box.files.put_tree("/workspace", source, limit_entries=1)


async def test_in_from_a_file(box, files, tmp_path):
    (tmp_path / "in.tar").write_bytes(tar(entry("a", b"x" * 5000)))
    report = await box.files.put_tree("/workspace/new", tmp_path / "in.tar")
    assert report.entries == 1
    assert files.content["/workspace/new/a"] == b"x" * 5000
    with pytest.raises(ConfigError, match=r"none\.tar: No such file"):
        await box.files.put_tree("/workspace", tmp_path / "none.tar")

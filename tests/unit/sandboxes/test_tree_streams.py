"""Trees out and in, by a real tar in a directory of this host, and by one that misbehaves."""

import asyncio
import errno
import io
import os
import signal
import subprocess
import tarfile

import pytest

from handiwork.model.errors import ConfigError, GuestError, UnsupportedError
from handiwork.model.sandbox import ExecResult, TreeReport
from handiwork.sandboxes import tree_streams
from handiwork.sandboxes.tree_filter import END
from handiwork.sandboxes.tree_streams import NOTES_BYTES, Inside, pack, unpack
from host_sandbox import HostFiles, HostSandbox
from image_archives import directory, entry, link, tar


async def packed(box, path, **limits):
    pieces = [piece async for piece in pack(box, path, **limits)]
    assert isinstance(pieces[-1], TreeReport)
    return b"".join(pieces[:-1]), pieces[-1]


async def in_pieces(data, step=1000):
    for at in range(0, len(data), step):
        yield data[at : at + step]


def members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {
            one.name: archive.extractfile(one).read() if one.isreg() else one.linkname
            for one in archive
        }


@pytest.fixture
async def box(tmp_path):
    return HostSandbox("sbx_host00000000", tmp_path)


async def test_a_directory_and_a_file_come_out(box):
    await box.files.write("/workspace/d/-odd name", b"x" * 300_000)
    (box.root / "workspace/d/link").symlink_to("/etc/passwd")
    os.mkfifo(box.root / "workspace/d/pipe")
    data, report = await packed(box, "/workspace/d")
    assert members(data) == {".": "", "./-odd name": b"x" * 300_000, "./link": "/etc/passwd"}
    assert report.skipped == ("./pipe: a FIFO",)
    data, _ = await packed(box, "/workspace/d/-odd name")
    assert members(data) == {"./-odd name": b"x" * 300_000}


async def test_a_tree_goes_in(box):
    data = tar(directory("a"), entry("a/f", b"x" * 5000, mode=0o750), link("a/l", "/"))
    report = await unpack(box, "/workspace/new/dir", in_pieces(data))
    made = box.root / "workspace/new/dir/a"
    assert (made / "f").read_bytes() == b"x" * 5000
    assert (made / "f").stat().st_mode & 0o777 == 0o750
    assert (made / "l").readlink().as_posix() == "/"
    assert (report.entries, report.bytes) == (3, len(data))


async def test_what_is_not_there_and_what_is_neither(box):
    with pytest.raises(GuestError) as caught:
        await packed(box, "/workspace/none")
    assert caught.value.errno == errno.ENOENT
    os.mkfifo(box.root / "workspace/pipe")
    with pytest.raises(GuestError) as caught:
        await packed(box, "/workspace/pipe")
    assert caught.value.errno == errno.EINVAL


async def test_a_tree_over_a_limit_ends_with_its_tar(box):
    await box.files.write("/workspace/d/large", bytes(3 << 20))
    for limit, said in (({"most_bytes": 1 << 20}, "bytes"), ({"most_entries": 1}, "entries")):
        with pytest.raises(GuestError, match=said) as caught:
            await packed(box, "/workspace/d", **limit)
        assert caught.value.errno == errno.EFBIG
        assert (await box.started[-1].wait()).exit_code != 0


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (tar(entry("a", b"x"), entry("../b", b"")), r"'\.\.'"),
        (tar(entry("a", b"x"))[:700], "cut short"),
        (b"", "cut short"),
        (tar(entry("a", b"x"), entry("b" * 200, b"y" * 600))[:2048], "cut short"),
        (b"PK\3\4" + bytes(1000), "malformed|checksum"),
    ],
)
async def test_what_is_no_whole_archive_is_told_with_what_was_unpacked(box, data, said):
    with pytest.raises(ConfigError, match=rf"{said}.*entries up to there is unpacked"):
        await unpack(box, "/workspace", in_pieces(data, 600))
    assert (await box.started[-1].wait()).exit_code != 0


async def test_what_cannot_be_written_is_told(box):
    await box.files.write("/workspace/a/b", b"a file in the way of a directory")
    with pytest.raises(GuestError, match=r"b/c: .*what could be of the 2 entries"):
        await unpack(box, "/workspace/a", in_pieces(tar(entry("b/c", b"x"), entry("d", b"y"))))
    assert (box.root / "workspace/a/d").read_bytes() == b"y"


async def test_leaving_early_ends_the_tar(box):
    """More than every buffer on the way holds, so that a tar that is left alone stands still."""
    with (box.root / "workspace/large").open("wb") as file:
        file.truncate(1 << 30)
    tree = pack(box, "/workspace")
    await anext(tree)
    await tree.aclose()
    async with asyncio.timeout(30):
        assert (await box.started[-1].wait()).exit_code != 0


async def test_cancelling_ends_the_tar(box):
    async def never_ends():
        yield tar(entry("a", b"x"))[:512]
        await asyncio.Event().wait()

    call = asyncio.create_task(unpack(box, "/workspace", never_ends()))
    while not box.started:  # noqa: ASYNC110  the sandbox of the tests tells nothing
        await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (await box.started[-1].wait()).exit_code == 128 + signal.SIGKILL


class OddTar:
    """Gives what it is told to, and ends as it is told to; without an end it stands still."""

    def __init__(self, *chunks, code=0, stands=False):
        self._chunks = chunks
        self._stands = stands
        self._result = ExecResult(exit_code=code, stdout=b"", stderr=b"")
        self.closed = False

    async def output(self):
        for chunk in self._chunks:
            yield chunk
        if self._stands:
            await asyncio.Event().wait()

    async def write(self, data):
        if self._stands:
            await asyncio.Event().wait()
        raise GuestError("it reads no more", errno=errno.EPIPE)

    async def wait(self):
        return self._result

    def close(self):
        self.closed = True


class OddSandbox:
    languages = ()

    def __init__(self, tmp_path, tar):
        self.files = HostFiles(tmp_path)
        (tmp_path / "workspace").mkdir()
        self.tar = tar

    async def start(self, request, *, stdin=False):
        assert request.env["TAR_OPTIONS"] == ""
        if self.tar is None:
            raise GuestError("exec failed (error 2)", errno=errno.ENOENT)
        return self.tar


WHOLE = tar(entry("a", b"x"))


async def test_an_image_without_tar(tmp_path):
    box = OddSandbox(tmp_path, None)
    with pytest.raises(UnsupportedError, match="no tar"):
        await packed(box, "/workspace")
    with pytest.raises(UnsupportedError, match="no tar"):
        await unpack(box, "/workspace", in_pieces(WHOLE))


@pytest.mark.parametrize(
    ("chunks", "code", "number", "said"),
    [
        ([("stdout", b"x" * 512)], 0, errno.EBADMSG, "checksum|malformed"),
        ([("stdout", tar(entry("/a", b"")))], 0, errno.EBADMSG, "absolute"),
        ([("stdout", WHOLE[:512])], 0, errno.EIO, "exit code 0"),
        ([("stdout", WHOLE), ("stderr", b"\33[2Ja: gone\n")], 2, errno.EIO, r"whole: \[2Ja: gone"),
        ([("stdout", WHOLE)], 1, errno.EIO, "exit code 1"),
    ],
)
async def test_a_tree_that_is_not_whole_has_no_end(tmp_path, chunks, code, number, said):
    odd = OddTar(*chunks, code=code)
    got = []

    async def take():
        async for piece in pack(OddSandbox(tmp_path, odd), "/workspace"):
            got.append(piece)

    with pytest.raises(GuestError, match=said) as caught:
        await take()
    assert caught.value.errno == number
    assert END not in got
    assert odd.closed


READERS = {
    "GNU tar": lambda data: (
        subprocess.run(["tar", "-t"], input=data, capture_output=True).returncode
    ),
    "Python": lambda data: refused_by_python(data),
}


def refused_by_python(data):
    try:
        members(data)
    except tarfile.ReadError:
        return True
    return False


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("cut", [1024, 1100, 1536, 2048, 2560])
async def test_what_failed_is_refused_by_every_reader(tmp_path, reader, cut):
    data = tar(entry("a", b"x"), entry("b", b"y" * 600), directory("c"))
    got = []

    async def take():
        async for piece in pack(OddSandbox(tmp_path, odd), "/workspace"):
            got.append(piece)

    odd = OddTar(("stdout", data[:cut]), code=2)
    with pytest.raises(GuestError):
        await take()
    assert isinstance(got[-1], Inside)
    assert READERS[reader](b"".join(got))


async def test_a_change_is_seen_beyond_what_is_kept(tmp_path):
    flood = ("stderr", b"n" * NOTES_BYTES)
    says = [("stderr", b"tar: ./a: file changed as"), ("stderr", b" we read it\n")]
    odd = OddTar(flood, *says, ("stdout", WHOLE), code=1)
    data, _ = await packed(OddSandbox(tmp_path, odd), "/workspace")
    assert members(data) == {"a": b"x"}


async def test_a_sender_that_stalls_after_the_end_is_not_waited_for(box, monkeypatch):
    monkeypatch.setattr(tree_streams, "STALL_SECONDS", 1.0)

    async def stalls():
        yield WHOLE
        await asyncio.Event().wait()

    async with asyncio.timeout(20):
        report = await unpack(box, "/workspace", stalls())
    assert report.entries == 1
    assert (box.root / "workspace/a").read_bytes() == b"x"


async def test_a_file_that_changed_meanwhile_is_noted(tmp_path):
    says = ("stderr", b"tar: ./a: file changed as we read it\n")
    data, report = await packed(
        OddSandbox(tmp_path, OddTar(says, ("stdout", WHOLE), code=1)), "/workspace"
    )
    assert members(data) == {"a": b"x"}
    assert report.notes == "tar: ./a: file changed as we read it"


async def test_what_it_says_is_kept_up_to_a_bound(tmp_path):
    flood = OddTar(*[("stderr", b"n" * 60_000)] * 50, ("stdout", WHOLE))
    _, report = await packed(OddSandbox(tmp_path, flood), "/workspace")
    assert len(report.notes) == NOTES_BYTES


async def test_one_that_ends_early_has_its_reason_told(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    odd = OddTar(("stderr", b"tar: no space left\n"), code=2)
    with pytest.raises(GuestError, match="no space left"):
        await unpack(OddSandbox(tmp_path, odd), "/workspace", in_pieces(WHOLE))
    with pytest.raises(GuestError, match="ended early"):
        await unpack(OddSandbox(other, OddTar()), "/workspace", in_pieces(WHOLE))


async def test_one_that_stands_still_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(tree_streams, "STALL_SECONDS", 0.05)
    for call in (
        lambda box: packed(box, "/workspace"),
        lambda box: unpack(box, "/workspace", in_pieces(WHOLE)),
    ):
        odd = OddTar(stands=True)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        with pytest.raises(GuestError, match="stood still") as caught:
            await call(OddSandbox(folder, odd))
        assert caught.value.errno == errno.ETIMEDOUT
        assert odd.closed

"""Layers made one again: everything that was seen, and only that, on one place."""

import os
import shutil
import tempfile
import threading
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.settling import Settling
from handiwork.sandboxes.snapshots.owners import Range

pytestmark = pytest.mark.root
THEIRS, OURS = 3_000_000, 4_000_000


@pytest.fixture
def folder():
    path = Path(tempfile.mkdtemp(prefix="handiwork-settling-"))
    for name in ("top", "bottom", "place", "image"):
        (path / name).mkdir()
    yield path
    shutil.rmtree(path)


def put(path, content, inner=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.chown(path, THEIRS + inner, THEIRS + inner)
    return path


def settle(folder, stop=None):
    opened = [os.open(folder / name, os.O_RDONLY) for name in ("top", "bottom", "place", "image")]
    try:
        Settling(
            sandbox_id="sbx_aaaaaaaa",
            uppers=opened[:2],
            image=opened[3],
            owners=Range(THEIRS),
            place=opened[2],
            ids=Range(OURS),
            stop=stop or threading.Event(),
        ).run()
    finally:
        for one in opened:
            os.close(one)
    return folder / "place/upper"


def test_files_links_holes_owners_and_deletions(folder):
    top, bottom = folder / "top", folder / "bottom"
    put(bottom / "d/a", b"bottom", inner=7).chmod(0o4750)
    os.setxattr(bottom / "d/a", "user.note", b"kept")
    os.link(bottom / "d/a", bottom / "d/b")
    (bottom / "d/link").symlink_to("/etc/passwd")
    put(bottom / "gone", b"x")
    os.mknod(top / "gone", 0o020600, 0)
    put(folder / "image/gone", b"x")
    put(bottom / "d/gone", b"x")
    os.mknod(put(top / "d/new", b"top").with_name("gone"), 0o020600, 0)
    with put(bottom / "holes", b"").open("r+b") as file:
        file.truncate(8 << 20)
        file.seek(4 << 20)
        file.write(b"middle")
    os.utime(bottom / "d/a", ns=(1, 1))
    tree = settle(folder)
    facts = (tree / "d/a").stat()
    assert (tree / "d/a").read_bytes() == b"bottom"
    assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (OURS + 7, OURS + 7, 0o4750)
    assert (facts.st_nlink, facts.st_mtime_ns) == (2, 1)
    assert (tree / "d/b").samefile(tree / "d/a")
    assert os.getxattr(tree / "d/a", "user.note") == b"kept"
    assert (tree / "d/link").readlink() == Path("/etc/passwd")
    assert (tree / "d/new").read_bytes() == b"top"
    assert (tree / "gone").is_char_device()  # of the image's it is hidden still
    assert not os.path.lexists(tree / "d/gone")
    assert (tree / "holes").read_bytes() == bytes(4 << 20) + b"middle" + bytes((4 << 20) - 6)
    assert (tree / "holes").stat().st_blocks < 2048
    assert [one.name for one in (folder / "place").iterdir()] == ["upper"]


def test_one_that_is_stopped_ends(folder):
    put(folder / "bottom/a", b"x")
    stop = threading.Event()
    stop.set()
    with pytest.raises(SandboxUnavailableError, match="stopped"):
        settle(folder, stop)


def test_it_stops_in_the_middle_of_a_file(folder, monkeypatch):
    stop, sendfile = threading.Event(), os.sendfile

    def sent_then_stopped(*arguments):
        stop.set()
        return sendfile(*arguments)

    monkeypatch.setattr("handiwork.sandboxes.settling.PIECE_BYTES", 4096)
    monkeypatch.setattr(os, "sendfile", sent_then_stopped)
    put(folder / "top/large", bytes(range(256)) * 64)
    with pytest.raises(SandboxUnavailableError, match="the copy was stopped"):
        settle(folder, stop)

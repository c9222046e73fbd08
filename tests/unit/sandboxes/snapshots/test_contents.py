import os
import random

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.snapshots import contents
from handiwork.sandboxes.snapshots.contents import Contents
from handiwork.sandboxes.snapshots.manifest import Entry
from handiwork.sandboxes.snapshots.sealing import Keys
from handiwork.testing.blobs import FakeBlobs


@pytest.fixture
def taken():
    one = Contents(FakeBlobs(), Keys(b"k" * 32), "t", os.urandom)
    yield one
    one.close()


def read(taken, tmp_path, content, *, sparse=False):
    path = tmp_path / "file"
    path.write_bytes(content)
    entry = Entry(0, b"file", 1, 0o644, 0, 0, 0)
    with path.open("rb") as file:
        taken.read(entry, file.fileno(), len(content), sparse=sparse)
    return entry


def test_extents_ascend_and_cover_the_file(taken, tmp_path):
    entry = read(taken, tmp_path, random.Random(1).randbytes(13_000_000))
    taken.finish()
    end = 0
    for at in range(0, len(entry.extents), 4):
        assert entry.extents[at] == end
        end += entry.extents[at + 3]
    assert end == entry.size == 13_000_000


def test_small_files_share_chunks(taken, tmp_path):
    entries = [read(taken, tmp_path, bytes([n]) * 500) for n in range(20)]
    taken.finish()
    assert {entry.extents[1] for entry in entries} == {0}


def test_a_file_that_shrinks_is_as_long_as_what_was_read(taken, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    entry = Entry(0, b"file", 1, 0o644, 0, 0, 0)
    with path.open("rb") as file:
        taken.read(entry, file.fileno(), 50_000_000, sparse=False)
    taken.finish()
    assert entry.size == 100


def test_holes_without_end_are_bounded(taken, tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "MAX_SEGMENTS", 3)
    path = tmp_path / "holes"
    with path.open("wb") as file:
        for number in range(10):
            file.seek(number * 100_000)
            file.write(b"x" * 4096)
    entry = Entry(0, b"holes", 1, 0o644, 0, 0, 0)
    with path.open("rb") as file:
        taken.read(entry, file.fileno(), path.stat().st_size, sparse=True)
    taken.finish()
    assert entry.size == path.stat().st_size
    assert entry.extents[-4] + entry.extents[-1] == entry.size


def test_a_store_that_fails_is_told(taken, tmp_path):
    read(taken, tmp_path, os.urandom(1_000_000))
    taken._blobs.fail_at(0)
    with pytest.raises(SandboxUnavailableError, match="refuses"):
        taken.finish()

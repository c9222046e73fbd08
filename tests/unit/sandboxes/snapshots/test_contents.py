import os
import random
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.snapshots import contents
from handiwork.sandboxes.snapshots.contents import Contents, OpenFile
from handiwork.sandboxes.snapshots.manifest import Entry
from handiwork.sandboxes.snapshots.packs import PackReader
from handiwork.sandboxes.snapshots.sealing import Keys
from handiwork.testing.blobs import FakeBlobs


@pytest.fixture
def taken():
    one = Contents(FakeBlobs(), Keys(b"k" * 32), "t", os.urandom)
    yield one
    one.close()


def opened(file, **changes):
    """The content of an open file, or one of which other facts were told."""
    content = OpenFile(file.fileno(), os.fstat(file.fileno()))
    for name, value in changes.items():
        setattr(content, name, value)
    return content


def read(taken, tmp_path, content):
    path = tmp_path / "file"
    path.write_bytes(content)
    entry = Entry(0, b"file", 1, 0o644, 0, 0, 0)
    with path.open("rb") as file:
        taken.read(entry, opened(file))
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
        taken.read(entry, opened(file, size=50_000_000, is_sparse=False))
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
        taken.read(entry, opened(file, is_sparse=True))
    taken.finish()
    assert entry.size == path.stat().st_size
    assert entry.extents[-4] + entry.extents[-1] == entry.size


def test_a_store_that_fails_is_told(taken, tmp_path):
    read(taken, tmp_path, os.urandom(1_000_000))
    taken._blobs.fail_at(0)
    with pytest.raises(SandboxUnavailableError, match="refuses"):
        taken.finish()


@given(st.lists(st.integers(1, 90_000), min_size=1, max_size=60), st.integers(0, 2**32))
def test_every_file_of_a_window_is_what_its_extents_say(sizes, seed):
    noise, blobs, keys = random.Random(seed), FakeBlobs(), Keys(b"k" * 32)
    parts = [noise.randbytes(size) for size in sizes]
    taken = Contents(blobs, keys, "t", os.urandom)
    entries = [Entry(0, b"f%d" % n, 1, 0o644, 0, 0, 0) for n in range(len(parts))]
    try:
        for entry, part in zip(entries, parts, strict=True):
            with tempfile.TemporaryFile() as file:
                file.write(part)
                file.flush()
                taken.read(entry, opened(file))
        taken.finish()
    finally:
        taken.close()
    reader = PackReader(blobs, keys, "t")
    for entry, part in zip(entries, parts, strict=True):
        found = b""
        for at in range(0, len(entry.extents), 4):
            offset, number, skip, length = entry.extents[at : at + 4]
            assert offset == len(found)
            place = taken.places[number]
            found += reader.chunk(taken.packs[place.pack], place, str)[skip : skip + length]
        assert found == part

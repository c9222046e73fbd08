"""A generation as one file: there and back, and whatever somebody writes into such a file."""

import os
import struct
import threading
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handiwork.model.errors import ConfigError, HandiworkError, NotFoundError, UnsupportedError
from handiwork.sandboxes.snapshots import archive
from handiwork.sandboxes.snapshots.archive import check_size, exported, opened
from handiwork.sandboxes.snapshots.generations import Generations
from handiwork.sandboxes.snapshots.manifest import Body, Entry, Kind
from handiwork.sandboxes.snapshots.packs import pack_key
from handiwork.sandboxes.snapshots.sealing import DamagedError


def of(blobs, keys, tenant):
    return Generations(blobs, keys, tenant, lambda: datetime.now(UTC), os.urandom)


def file_of(place, path, manifest):
    generations = of(place.blobs, place.keys, "default")
    path.write_bytes(b"".join(exported(generations, manifest, os.urandom)))
    return path


def read(path):
    with path.open("rb") as file:
        return opened(os.dup(file.fileno()), path.stat().st_size)


@pytest.fixture
def small(place, tmp_path):
    place.file("a", b"small" * 100)
    return file_of(place, tmp_path / "small", place.take()).read_bytes()


def test_there_and_back_from_several_generations(place, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "PACK_BYTES", 100_000)
    place.file("d/a", os.urandom(400_000))
    first = place.take()
    place.file("b", os.urandom(300_000), inner=5)
    (place.upper / "l").symlink_to("d/a")
    manifest = place.take(first)
    found = read(file_of(place, tmp_path / "file", manifest))
    assert (found.sandbox_id, found.number) == ("sbx_aaaaaaaa", manifest.head.number)
    assert len(found.blobs.places) > 3
    generations = of(found.blobs, found.keys, archive.TENANT)
    loaded = generations.load(found.sandbox_id, found.number)
    (tmp_path / "made").mkdir()
    target = os.open(tmp_path / "made", os.O_RDONLY)
    generations.make(loaded, place.ids, target, "u", threading.Event())
    for name in ("d/a", "b"):
        assert (tmp_path / "made/u" / name).read_bytes() == (place.upper / name).read_bytes()
    assert (tmp_path / "made/u/b").stat().st_uid == (place.upper / "b").stat().st_uid
    assert (tmp_path / "made/u/l").readlink().name == "a"


def test_no_two_files_have_one_key_and_none_has_the_tenants(place, tmp_path):
    place.file("a", b"x" * 1000)
    manifest = place.take()
    one, other = (file_of(place, tmp_path / name, manifest).read_bytes() for name in "ab")
    assert one[8:40] != other[8:40]
    assert b"k" * 32 not in one


def test_a_damaged_chunk_is_not_exported(place, tmp_path):
    place.file("a", b"x" * 50_000)
    manifest = place.take()
    pack = pack_key("default", manifest.head.packs[0])
    place.blobs.kept[pack] = place.blobs.kept[pack][:-1] + b"?"
    with pytest.raises(DamagedError, match="it is exported"):
        file_of(place, tmp_path / "file", manifest)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[:-1], "cut short"),
        (lambda data: data[:20], "cut short"),
        (lambda data: b"", "no file that"),
        (lambda data: b"tar" + data, "no file that"),
        (lambda data: data[:40] + data[-8:], "0 manifests"),
        (lambda data: data[:-8] + data[40:], "twice there"),
        (
            lambda data: data[:40] + struct.pack(">HQ", 4, 1 << 60) + b"x" * 40 + data[-8:],
            "too long",
        ),
        (
            lambda data: data[:40] + struct.pack(">HQ", 4, 1) + b"/../" + b"x" + data[-8:],
            "without a",
        ),
        (lambda data: data[:40] + struct.pack(">HQ", 4, 1) + b"\xff" * 5 + data[-8:], "without a"),
    ],
)
def test_what_is_no_such_file_is_refused_with_the_reason(small, tmp_path, change, told):
    (tmp_path / "file").write_bytes(change(small))
    with pytest.raises(ConfigError, match=told):
        read(tmp_path / "file")


def test_so_many_records_and_no_more(small, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_RECORDS", 1)
    (tmp_path / "file").write_bytes(small)
    with pytest.raises(ConfigError, match="more than 1 records"):
        read(tmp_path / "file")
    monkeypatch.setattr(archive, "MAX_FILE_BYTES", 10)
    with pytest.raises(ConfigError, match="larger"):
        read(tmp_path / "file")


@settings(deadline=None, max_examples=60)
@given(at=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255), cut=st.booleans())
def test_one_that_was_changed_anywhere_makes_no_other_tree(tmp_path_factory, at, value, cut):
    data = bytearray(WHOLE[0])
    position = int(at * len(data))
    data[position] ^= value
    path = tmp_path_factory.mktemp("changed") / "file"
    path.write_bytes(data[:position] if cut else data)
    try:
        found = read(path)
        loaded = of(found.blobs, found.keys, archive.TENANT).load(found.sandbox_id, found.number)
    except HandiworkError:
        return
    assert msgspec.msgpack.encode(loaded.body) == WHOLE[1]


WHOLE = []


@pytest.fixture(autouse=True)
def whole(small, tmp_path):
    (tmp_path / "whole").write_bytes(small)
    found = read(tmp_path / "whole")
    loaded = of(found.blobs, found.keys, archive.TENANT).load(found.sandbox_id, found.number)
    WHOLE[:] = [small, msgspec.msgpack.encode(loaded.body)]


def test_it_is_read_only(small, tmp_path):
    (tmp_path / "file").write_bytes(small)
    blobs = read(tmp_path / "file").blobs
    for call in (blobs.put, blobs.put_if_absent):
        with pytest.raises(UnsupportedError):
            call("a", b"x")
    with pytest.raises(UnsupportedError):
        blobs.delete("a")
    with pytest.raises(NotFoundError):
        blobs.get("a")
    (key,) = blobs.list("file/packs")
    assert blobs.get(key, limit_bytes=3) == blobs.get(key)[:3]


def test_a_chunk_that_is_used_a_million_times_counts_each_time():
    root = Entry(parent=-1, name=b"", kind=Kind.DIRECTORY, mode=0o755, uid=0, gid=0, mtime_ns=0)
    many = tuple(number for at in range(1000) for number in (at * 1000, 0, 0, 1000))
    file = Entry(
        parent=0, name=b"a", kind=Kind.FILE, mode=0o644, uid=0, gid=0, mtime_ns=0, extents=many
    )
    check_size(Body(chunks=(), entries=[root, file]), 1_000_000)
    with pytest.raises(ConfigError, match="limit on disk"):
        check_size(Body(chunks=(), entries=[root, file]), 999_999)

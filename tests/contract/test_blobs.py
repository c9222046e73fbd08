"""Every store of blobs, and the fake, keeps the same promises; S3 is a real server."""

import concurrent.futures
import os

import obstore
import pytest
import structlog

from handiwork.model.errors import NotFoundError
from handiwork.store.object_blobs import ObjectBlobs
from handiwork.testing.blobs import FakeBlobs
from seaweed import seaweed_server


@pytest.fixture(scope="module")
def s3_place(tmp_path_factory):
    with seaweed_server(tmp_path_factory.mktemp("seaweed")) as server:
        yield server.place


@pytest.fixture(params=["fake", "directory", "s3"])
def blobs(request, tmp_path):
    if request.param == "fake":
        return FakeBlobs()
    if request.param == "directory":
        return ObjectBlobs.in_directory(tmp_path / "blobs")
    return ObjectBlobs.on_s3(request.getfixturevalue("s3_place"))


@pytest.fixture
def prefix():
    return f"p{os.urandom(6).hex()}"


def test_what_was_put_is_got(blobs, prefix):
    data = os.urandom(3_000_000)
    blobs.put(f"{prefix}/packs/a", data)
    assert blobs.get(f"{prefix}/packs/a") == data
    assert blobs.get(f"{prefix}/packs/a", limit_bytes=10) == data[:10]
    assert blobs.get(f"{prefix}/packs/a", limit_bytes=4_000_000) == data


def test_put_replaces(blobs, prefix):
    blobs.put(f"{prefix}/a", b"first")
    blobs.put(f"{prefix}/a", b"2")
    assert blobs.get(f"{prefix}/a") == b"2"


def test_what_is_not_there_is_told(blobs, prefix):
    with pytest.raises(NotFoundError, match=prefix):
        blobs.get(f"{prefix}/nothing")
    with pytest.raises(NotFoundError, match=prefix):
        blobs.get(f"{prefix}/nothing", limit_bytes=5)


def test_the_first_of_two_writers_wins(blobs, prefix):
    assert blobs.put_if_absent(f"{prefix}/a", b"mine")
    assert not blobs.put_if_absent(f"{prefix}/a", b"yours")
    assert blobs.get(f"{prefix}/a") == b"mine"


def test_one_of_many_at_once_wins(blobs, prefix):
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        won = list(pool.map(lambda n: blobs.put_if_absent(f"{prefix}/a", b"%d" % n), range(6)))
    assert won.count(True) == 1
    assert blobs.get(f"{prefix}/a") == b"%d" % won.index(True)


def test_list_takes_whole_parts(blobs, prefix):
    for key in ("a/1", "a/2", "a/b/3", "ab/4"):
        blobs.put(f"{prefix}/{key}", b"x")
    assert sorted(blobs.list(f"{prefix}/a")) == [f"{prefix}/a/{n}" for n in ("1", "2", "b/3")]
    assert list(blobs.list(f"{prefix}/none")) == []


def test_what_has_no_key_is_passed_over_and_told_once(blobs, prefix):
    """Such as file systems, desktops and broken-off copies leave: none of it ends a listing."""
    blobs.put(f"{prefix}/a/0000000001", b"x")
    others = (".nfs0001", ".DS_Store", ".0000000001.Ab3", "a b", "Dir/file")
    for name in others:
        leave(blobs, f"{prefix}/a/{name}")
    with structlog.testing.capture_logs() as logs:
        assert list(blobs.list(f"{prefix}/a")) == [f"{prefix}/a/0000000001"]
    if isinstance(blobs, FakeBlobs):
        return
    (told,) = logs
    assert (told["log_level"], told["below"]) == ("warning", f"{prefix}/a")
    assert told["count"] == len(others)
    assert len(told["first"]) == 3


def leave(blobs, path):
    """Leave a file in a store, beside it."""
    if isinstance(blobs, FakeBlobs):
        blobs.kept[path] = b"x"
    elif (directory := blobs._directory) is not None:
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(b"x")
    else:
        obstore.put(blobs._store, path, b"x")


def test_delete_forgets_and_may_be_repeated(blobs, prefix):
    blobs.put(f"{prefix}/a", b"x")
    blobs.delete(f"{prefix}/a")
    blobs.delete(f"{prefix}/a")
    assert list(blobs.list(prefix)) == []


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/..", "a b", "A", "a/", ".a"])
def test_a_key_is_a_plain_path(blobs, key):
    with pytest.raises(ValueError, match="no key"):
        blobs.put(key, b"x")

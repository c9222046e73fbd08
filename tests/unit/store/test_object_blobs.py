import errno
import os
from pathlib import Path

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.store import object_blobs
from handiwork.store.object_blobs import ObjectBlobs, S3Place


def test_a_local_blob_is_flushed_with_the_directories_that_name_it(tmp_path, monkeypatch):
    flushed = []
    real = os.fsync

    def fsync(descriptor):
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    blobs = ObjectBlobs.in_directory(tmp_path / "blobs")
    blobs.put("a/b", b"x")
    assert flushed == [str(tmp_path / part) for part in ("blobs/a/b", "blobs/a", "blobs")]


def test_a_directory_that_is_new_is_flushed_in_its_parent_and_an_old_one_once(
    tmp_path, monkeypatch
):
    blobs = ObjectBlobs.in_directory(tmp_path)
    flushed = []
    monkeypatch.setattr(object_blobs, "_flush", lambda path: flushed.append(path))
    blobs.put("t/packs/aa/one", b"x")
    packs = tmp_path / "t/packs"
    assert flushed == [packs / "aa/one", packs / "aa", packs, tmp_path / "t", tmp_path]
    flushed.clear()
    blobs.put("t/packs/aa/two", b"x")
    assert flushed == [packs / "aa/two", packs / "aa"]
    flushed.clear()
    blobs.put("t/packs/bb/one", b"x")
    assert flushed == [packs / "bb/one", packs / "bb", packs]


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    blobs = ObjectBlobs.in_directory(tmp_path / "blobs")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SandboxUnavailableError, match=r"cannot write a/b: .*No space left"):
        blobs.put("a/b", b"x")


def test_a_server_that_is_away_is_told_within_its_time():
    place = S3Place(
        bucket="b",
        endpoint="http://127.0.0.1:9",
        access_key_id="key-id",
        secret_access_key="hidden",
        timeout_seconds=1,
        retry_seconds=1,
    )
    assert "hidden" not in repr(place)
    with pytest.raises(SandboxUnavailableError, match="s3://b: cannot read a"):
        ObjectBlobs.on_s3(place).get("a")

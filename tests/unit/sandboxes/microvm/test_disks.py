"""Disks: made once, copied as sparse as they are, of exactly the size that was asked for."""

import os

import pytest

from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.sandboxes.microvm import disks


async def test_a_blank_disk_is_made_once_and_is_a_file_system(tmp_path):
    blank = await disks.blank_disk(tmp_path / "blank", 64)
    assert blank.stat().st_size == 64 << 20
    assert blank.read_bytes()[1080:1082] == b"\x53\xef"
    stamp = blank.stat().st_mtime_ns
    assert await disks.blank_disk(tmp_path / "blank", 64) == blank
    assert blank.stat().st_mtime_ns == stamp
    assert [path.name for path in blank.parent.iterdir()] == ["blank-64"]


async def test_what_cannot_be_formatted_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(disks, "find_program", lambda *_: "/bin/false")
    with pytest.raises(SandboxUnavailableError, match="ended with 1"):
        await disks.blank_disk(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_has_the_same_bytes_and_no_more_room(tmp_path):
    source, target = tmp_path / "a", tmp_path / "b"
    disks.make_sparse(source, 64)
    with source.open("r+b") as file:
        for at in (0, 5 << 20, 40 << 20):
            file.seek(at)
            file.write(os.urandom(10_000))
    disks.copy_sparse(source, target)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_blocks < 1000
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_sparse_file_takes_the_place_of_an_earlier_one(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    disks.make_sparse(path, 2)
    assert path.read_bytes() == bytes(2 << 20)


def test_a_missing_program_names_its_package():
    assert disks.find_program("sh", "dash").endswith("/sh")
    with pytest.raises(UnsupportedError, match="apt-get install some-package"):
        disks.find_program("no-such-program", "some-package")

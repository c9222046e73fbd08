"""A zip archive is read strictly."""

import stat
import zipfile

import pytest

from archives import zipped
from handiwork.sessions.archives.rules import ArchiveError, ArchiveLimits
from handiwork.sessions.archives.unpack import unpack


@pytest.mark.parametrize(
    "mode", [stat.S_IFLNK | 0o777, stat.S_IFCHR | 0o600, stat.S_IFIFO, stat.S_IFREG | 0o4755]
)
def test_the_same_in_a_zip(mode: int) -> None:
    with pytest.raises(ArchiveError):
        unpack(zipped({"top/l": b"x"}, modes={"top/l": mode}))


def test_no_file_twice_in_a_zip() -> None:
    archive = zipped({"aa": b"1", "ab": b"2"}).replace(b"ab", b"aa")
    with pytest.raises(ArchiveError, match="twice"):
        unpack(archive)


def test_a_zip_that_is_a_bomb() -> None:
    bomb = zipped({"a": bytes(64 * 1024 * 1024)})
    with pytest.raises(ArchiveError, match="times its size"):
        unpack(bomb)
    with pytest.raises(ArchiveError, match="more than 4194304 bytes"):
        unpack(bomb, ArchiveLimits(total_bytes=4 * 1024 * 1024, ratio=1 << 30))


def test_a_zip_whose_members_share_bytes() -> None:
    data = zipped({"aa": b"1" * 100, "ab": b"1" * 100}, zipfile.ZIP_STORED)
    second = data.rindex(b"PK\x01\x02")
    overlapping = bytearray(data)
    overlapping[second + 42 : second + 46] = bytes(4)
    overlapping[second + 46 : second + 48] = b"aa"
    with pytest.raises(ArchiveError):
        unpack(bytes(overlapping))


def test_an_encrypted_zip() -> None:
    data = bytearray(zipped({"a": b"x"}))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ArchiveError, match="encrypted"):
        unpack(bytes(data))


def test_content_that_is_not_what_the_directory_says() -> None:
    data = zipped({"a": b"hello there"}, zipfile.ZIP_STORED)
    with pytest.raises(ArchiveError, match="is not what it says"):
        unpack(data.replace(b"hello there", b"hello thera"))

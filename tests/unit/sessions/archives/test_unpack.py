"""Archives of every kind come out; bombs and broken ones do not."""

import bz2
import gzip
import lzma
import stat
import tarfile
import zipfile

import pytest

from archives import member, tarred, zipped
from handiwork.sessions.archives.rules import ArchiveError, ArchiveLimits
from handiwork.sessions.archives.unpack import unpack


@pytest.mark.parametrize(
    "archive",
    [
        zipped(modes={"skill/scripts/run.sh": stat.S_IFREG | 0o775}),
        zipped(method=zipfile.ZIP_STORED, modes={"skill/scripts/run.sh": 0o775}),
        tarred(),
        tarred(format=tarfile.GNU_FORMAT),
        tarred(format=tarfile.USTAR_FORMAT),
        gzip.compress(tarred(), mtime=0),
        bz2.compress(tarred()),
        lzma.compress(tarred()),
        tarred(members=[member("skill", tarfile.DIRTYPE), member("skill/x/", tarfile.DIRTYPE)]),
    ],
)
def test_every_kind_gives_the_same_files(archive: bytes) -> None:
    found = {one.path: (one.mode, one.data) for one in unpack(archive)}
    assert found == {
        "SKILL.md": (0o644, b"# hi\n"),
        "scripts/run.sh": (0o755, b"#!/bin/sh\n"),
        "a/b/c": (0o644, b""),
    }


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_bombs_are_put_out_before_they_are_large(pack) -> None:
    bomb = pack(tarred({"a": bytes(64 * 1024 * 1024)}))
    with pytest.raises(ArchiveError, match="times its size"):
        unpack(bomb, ArchiveLimits(total_bytes=1 << 40))
    with pytest.raises(ArchiveError, match="more than 4194304 bytes"):
        unpack(bomb, ArchiveLimits(total_bytes=4 * 1024 * 1024, ratio=1 << 30))


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"PK\x03\x04",
        b"\x1f\x8b",
        b"BZh",
        b"not an archive" * 100,
        bytes(1024),
        zipped()[:-1],
        zipped() + b"x",
        b"MZ" + zipped(),
        tarred()[:600],
        gzip.compress(tarred(), mtime=0)[:-9],
        gzip.compress(tarred(), mtime=0) + b"more",
        lzma.compress(tarred()) + lzma.compress(tarred()),
        lzma.compress(tarred(), preset=lzma.PRESET_EXTREME | 9, format=lzma.FORMAT_ALONE),
        gzip.compress(b"x" * 2000, mtime=0),
    ],
)
def test_what_is_no_archive_or_a_broken_one(archive: bytes) -> None:
    with pytest.raises(ArchiveError):
        unpack(archive)

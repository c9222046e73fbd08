"""A tar archive is read strictly, in all its dialects."""

import io
import tarfile

import pytest

from archives import member, tarred
from handiwork.sessions.archives.rules import ArchiveError
from handiwork.sessions.archives.unpack import unpack


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_of_both_dialects(format: int) -> None:
    name = "top/" + "long-" * 40 + "ü.md"
    (one,) = unpack(tarred({name: b"x"}, format))
    assert one.path == name.removeprefix("top/")


@pytest.mark.parametrize(
    "odd",
    [
        member("l", tarfile.SYMTYPE, linkname="/etc/passwd"),
        member("l", tarfile.LNKTYPE, linkname="skill/SKILL.md"),
        member("l", tarfile.CHRTYPE),
        member("l", tarfile.BLKTYPE),
        member("l", tarfile.FIFOTYPE),
        member("l", tarfile.REGTYPE, mode=0o4755),
        member("l", tarfile.REGTYPE, mode=0o2755),
        member("skill/SKILL.md", tarfile.REGTYPE),
        member("./skill//SKILL.md", tarfile.REGTYPE),
        member("skill/SKILL.md", tarfile.DIRTYPE),
        member("skill/SKILL.md/x", tarfile.REGTYPE),
        member("skill/a", tarfile.REGTYPE),
        member("", tarfile.REGTYPE),
    ],
)
def test_members_that_are_no_plain_files(odd: tarfile.TarInfo) -> None:
    with pytest.raises(ArchiveError):
        unpack(tarred(members=[odd]))


@pytest.mark.parametrize("record", [b"99 a=b\n", b"x", b"0 a=b\n", b"6 linkpath=", b"11 path=a/b"])
def test_malformed_pax_headers(record: bytes) -> None:
    head = member("x", tarfile.XHDTYPE, size=len(record)).tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(ArchiveError):
        unpack(head + record.ljust(512, b"\0") + tarred())


def test_a_sparse_member_is_not_served() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(
            member("x", tarfile.REGTYPE, pax_headers={"GNU.sparse.major": "1"}), io.BytesIO()
        )
    with pytest.raises(ArchiveError, match="sparse"):
        unpack(out.getvalue())

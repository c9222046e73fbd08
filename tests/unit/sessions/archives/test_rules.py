"""What an archive may hold, whatever its format."""

import pytest

from archives import tarred, zipped
from handiwork.sessions.archives.rules import ArchiveError, ArchiveLimits
from handiwork.sessions.archives.unpack import unpack

SMALL = ArchiveLimits(members=10, total_bytes=4 * 1024 * 1024, ratio=50, path_bytes=64, depth=4)


def test_only_one_directory_that_holds_all_is_stripped() -> None:
    assert [one.path for one in unpack(zipped({"a/x": b"", "b/y": b""}))] == ["a/x", "b/y"]
    assert [one.path for one in unpack(zipped({"a/x": b"", "SKILL.md": b""}))] == [
        "SKILL.md",
        "a/x",
    ]
    assert [one.path for one in unpack(zipped({"SKILL.md": b""}))] == ["SKILL.md"]
    assert [one.path for one in unpack(zipped({"a/b/x": b""}))] == ["b/x"]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/..",
        "C:\\x",
        "a\\b",
        "c:x",
        "a\nb",
        "a\u202eb",
        "x" * 300,
        "a/b/c/d/e/f",
        "a/" + "y" * 70,
    ],
)
def test_names_that_lead_elsewhere(name: str) -> None:
    for archive in (zipped({name: b"x"}), tarred({name: b"x"})):
        with pytest.raises(ArchiveError):
            unpack(archive, SMALL)
    assert unpack(zipped({"a/b": b"x"}), SMALL)


def test_names_that_are_one_after_normalization_are_one() -> None:
    with pytest.raises(ArchiveError, match="twice"):
        unpack(zipped({"e\u0301": b"1", "\u00e9": b"2"}))


def test_too_many_members() -> None:
    files = {f"d/{n}": b"" for n in range(11)}
    for archive in (zipped(files), tarred(files)):
        with pytest.raises(ArchiveError, match="more than 10 members"):
            unpack(archive, SMALL)


def test_time_is_up() -> None:
    asked = iter([False] * 2)
    with pytest.raises(ArchiveError, match="takes too long"):
        unpack(tarred(), expired=lambda: next(asked, True))

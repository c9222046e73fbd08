"""Uploads are skills, packed anew, or refused with the rule."""

import io
import stat
import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local import skill_files
from handiwork.brains.local.memory import check_path
from handiwork.brains.local.skill_files import SkillRefusedError
from skill_uploads import MANIFEST, with_manifest, zipped


def entries(skill: skill_files.Skill) -> dict[str, tuple[bytes, int]]:
    with zipfile.ZipFile(io.BytesIO(skill.archive)) as archive:
        return {
            each.filename: (archive.read(each), each.external_attr >> 16)
            for each in archive.infolist()
        }


def test_files_and_a_zip_make_the_same_archive():
    files = [("demo-skill/SKILL.md", MANIFEST.encode()), ("demo-skill/a/b.py", b"x")]
    loose = skill_files.packed(files)
    packed = skill_files.packed([("any.zip", zipped(*files))])
    assert loose == packed
    assert (loose.name, loose.description) == ("demo-skill", "Shows how.")
    assert entries(loose)["demo-skill/a/b.py"] == (b"x", 0o100644)


def test_the_archive_is_named_as_the_skill_and_keeps_only_plain_modes():
    archive = zipped(
        ("Upload 1/SKILL.md", MANIFEST, stat.S_IFREG | 0o4777),
        ("Upload 1/run.sh", "x", stat.S_IFREG | 0o6755),
        ("Upload 1/empty/", "", stat.S_IFDIR | 0o755),
    )
    found = entries(skill_files.packed([("u.zip", archive)]))
    assert {name: mode for name, (_, mode) in found.items()} == {
        "demo-skill/SKILL.md": 0o100755,
        "demo-skill/run.sh": 0o100755,
    }


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (with_manifest(("/etc/passwd", "x")), "empty"),
        (with_manifest(("demo-skill/../../x", "x")), "'..'"),
        (with_manifest(("demo-skill\\..\\x", "x")), "top-level|backslash"),
        (with_manifest(("demo-skill/a\\..\\x", "x")), "backslash"),
        (with_manifest(("demo-skill/link", "/etc", stat.S_IFLNK | 0o777)), "regular"),
        (with_manifest(("demo-skill/null", "", stat.S_IFCHR | 0o666)), "regular"),
        (with_manifest(("demo-skill/fifo", "", stat.S_IFIFO | 0o666)), "regular"),
        (with_manifest(("demo-skill/skill.MD", "x")), "twice"),
        (with_manifest(("demo-skill/a", "x"), ("demo-skill/a/b", "x")), "twice"),
        (with_manifest(("other/x", "x")), "top-level"),
        (with_manifest(("x", "x")), "top-level"),
        (with_manifest(("demo-skill/a\nb", "x")), "control"),
        (with_manifest(("demo-skill/bomb", b"\0" * (31 << 20))), "unpacks to too much"),
        (with_manifest(*[(f"demo-skill/{n}", "") for n in range(500)]), "500"),
        (zipped(("SKILL.md", MANIFEST)), "top-level"),
        (zipped(("demo/README.md", "x")), "SKILL.md must stand"),
        (zipped(("demo/a/SKILL.md", MANIFEST)), "SKILL.md must stand"),
    ],
)
def test_hostile_archives_are_refused_with_the_rule(archive, reason):
    with pytest.raises(SkillRefusedError, match=reason):
        skill_files.packed([("s.zip", archive)])


def test_a_bomb_is_stopped_by_ratio_before_the_size():
    small = with_manifest(("demo-skill/bomb", b"\0" * (8 << 20)))
    assert len(small) * skill_files.MAX_RATIO < 8 << 20
    with pytest.raises(SkillRefusedError, match="too much"):
        skill_files.packed([("s.zip", small)])


def test_nothing_and_too_much_are_refused(monkeypatch):
    with pytest.raises(SkillRefusedError, match="empty"):
        skill_files.packed([])
    monkeypatch.setattr(skill_files, "MAX_BYTES", 10)
    with pytest.raises(SkillRefusedError, match="10 bytes"):
        skill_files.packed([("demo-skill/SKILL.md", MANIFEST.encode())])


@given(st.data())
def test_a_damaged_archive_is_a_skill_or_refused(data):
    whole = bytearray(with_manifest(("demo-skill/a", "content")))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        skill = skill_files.packed(
            [("s.zip", bytes(whole[: data.draw(st.integers(30, len(whole)))]))]
        )
    except SkillRefusedError:
        return
    assert all(check_path(f"/{name}") for name in entries(skill))


@given(st.lists(st.tuples(st.text(max_size=12), st.binary(max_size=20)), max_size=5))
def test_any_upload_is_a_skill_or_refused(files):
    try:
        skill = skill_files.packed([("demo-skill/SKILL.md", MANIFEST.encode()), *files])
    except SkillRefusedError:
        return
    assert all(name.startswith("demo-skill/") for name in entries(skill))


@pytest.mark.parametrize(
    ("front", "said"),
    [
        ("name: a\ndescription: b c", ("a", "b c")),
        ("name: \"a\"\ndescription: 'it: is'", ("a", "it: is")),
        ("name: a\ndescription: >\n  one\n  two\n\nlicense: MIT", ("a", "one two")),
        ("name: a\ndescription: |-\n  one\n  two", ("a", "one\ntwo")),
        ("name: a\ndescription: one\n  two", ("a", "one two")),
        ("description: b", ("directory", "b")),
        ("name: a\nmetadata:\n  name: z\ndescription: b", ("a", "b")),
    ],
)
def test_front_matter_is_read_as_people_write_it(front, said):
    manifest = f"---\r\n{front}\n---\ntext".encode()
    assert skill_files.described(manifest, "directory") == said


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (b"", "front matter"),
        (b"# Title", "front matter"),
        (b"---\nname: a\n", "no end"),
        (b"---\nname: a\n---", "description"),
        (b"---\nname: A B\ndescription: d\n---", "lower-case"),
        (b"---\nname: " + b"a" * 65 + b"\ndescription: d\n---", "lower-case"),
        (b"---\nname: a\ndescription: " + b"d" * 1025 + b"\n---", "1024"),
        (b"\xff", "UTF-8"),
        (b"x" * (1 << 20) + b"x", "longer"),
    ],
)
def test_a_manifest_that_says_too_little_is_refused(manifest, reason):
    with pytest.raises(SkillRefusedError, match=reason):
        skill_files.described(manifest, "directory")


@given(st.text(max_size=200))
def test_any_manifest_is_read_or_refused(text):
    for manifest in (text, f"---\n{text}\n---\n"):
        try:
            fields = skill_files.front_matter(manifest)
        except SkillRefusedError:
            continue
        assert all(isinstance(value, str) for value in fields.values())

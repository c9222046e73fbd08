"""Skills are downloaded once, unpacked by the rules, and written where the agent looks."""

from pathlib import Path

import pytest

from archives import tarred, zipped
from handiwork.model.attachment import SkillRef, SkillVersion
from handiwork.model.errors import HandiworkError, NotFoundError
from handiwork.sessions import skills as module
from handiwork.sessions.skills import SessionSkills, SkillShelf, directory_name
from handiwork.store.archive_cache import ArchiveCache
from handiwork.testing.resources import FakeSkills
from host_sandbox import HostFiles
from resources_server import WORK

GOOD = zipped({"demo/SKILL.md": b"# hi", "demo/run.sh": b"#!/bin/sh"}, modes={"demo/run.sh": 0o755})


@pytest.fixture
def source() -> FakeSkills:
    source = FakeSkills()
    source.put("skill_1", "demo", GOOD)
    return source


@pytest.fixture
def shelf(tmp_path: Path) -> SkillShelf:
    return SkillShelf(ArchiveCache(tmp_path / "cache"))


def refs(*ids: str) -> list[SkillRef]:
    return [SkillRef(skill_id=one) for one in ids]


async def claim(path: str) -> None:
    assert path.startswith("/workspace/skills/")


async def test_written_whole_in_place_of_what_was_there(
    source: FakeSkills, shelf: SkillShelf, tmp_path: Path
) -> None:
    stale = tmp_path / "box/workspace/skills/demo/stale"
    stale.parent.mkdir(parents=True)
    stale.write_text("x")
    session, files = SessionSkills(shelf, source, WORK, claim), HostFiles(tmp_path / "box")
    assert await session.attach(refs("skill_1"), files) == {}
    place = tmp_path / "box/workspace/skills/demo"
    assert {path.name: path.stat().st_mode & 0o777 for path in place.iterdir()} == {
        "SKILL.md": 0o644,
        "run.sh": 0o755,
    }
    await session.detach(files)
    await session.detach(files)
    assert not place.exists()


async def test_a_version_is_downloaded_once_and_a_new_one_again(
    source: FakeSkills, shelf: SkillShelf, tmp_path: Path
) -> None:
    for number in range(3):
        session = SessionSkills(shelf, source, WORK, claim)
        assert await session.attach(refs("skill_1"), HostFiles(tmp_path / f"{number}")) == {}
    assert source.downloads == 1
    source.put("skill_1", "demo", GOOD, "skillver_2")
    await SessionSkills(shelf, source, WORK, claim).attach(
        refs("skill_1"), HostFiles(tmp_path / "box")
    )
    assert source.downloads == 2


async def test_a_bad_skill_does_not_hold_up_the_others(
    source: FakeSkills, shelf: SkillShelf, tmp_path: Path
) -> None:
    source.put("skill_escape", "escape", zipped({"../../etc/passwd": b"x"}))
    source.put("skill_empty", "empty", tarred({}))
    source.put("skill_again", "demo", GOOD)
    files = HostFiles(tmp_path / "box")
    session = SessionSkills(shelf, source, WORK, claim)
    named = ["skill_escape", "skill_none", "skill_empty", "skill_1", "skill_again"]
    failed = await session.attach(refs(*named), files)
    assert set(failed) == {"skill_escape", "skill_none", "skill_empty", "skill_again"}
    assert "'..'" in failed["skill_escape"]
    assert "named demo" in failed["skill_again"]
    assert [path.name for path in (tmp_path / "box/workspace/skills").iterdir()] == ["demo"]


async def test_the_cache_gives_nothing_to_who_may_not_have_it(
    source: FakeSkills, shelf: SkillShelf, tmp_path: Path
) -> None:
    files = HostFiles(tmp_path / "box")
    await SessionSkills(shelf, source, WORK, claim).attach(refs("skill_1"), files)
    source.failing = NotFoundError("no such skill for you")
    failed = await SessionSkills(shelf, source, WORK, claim).attach(refs("skill_1"), files)
    assert failed == {"skill_1": "no such skill for you"}


async def test_more_skills_than_the_limit(
    source: FakeSkills, shelf: SkillShelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_SKILLS", 1)
    failed = await SessionSkills(shelf, source, WORK, claim).attach(
        refs("skill_1", "skill_2"), HostFiles(tmp_path / "box")
    )
    assert failed == {"skill_2": "more than 1 skills"}


@pytest.mark.parametrize(
    ("name", "directory"),
    [
        ("demo", "demo"),
        (" demo ", "demo"),
        ("../../etc/cron.d", "cron.d"),
        ("..", "skill_1"),
        ("", "skill_1"),
        (".hidden", "skill_1"),
        ("a/", "skill_1"),
        ("x" * 65, "skill_1"),
        ("ü", "skill_1"),
    ],
)
def test_the_directory_of_a_skill(name: str, directory: str) -> None:
    assert directory_name(SkillVersion(skill_id="skill_1", id="v", name=name)) == directory


def test_a_skill_without_any_name() -> None:
    with pytest.raises(HandiworkError, match="no name for a directory"):
        directory_name(SkillVersion(skill_id="../x", id="v", name=".."))

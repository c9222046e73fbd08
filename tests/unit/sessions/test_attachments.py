"""What a session brings along is in place before its first call, or the session says why not."""

from pathlib import Path

import pytest

from archives import zipped
from handiwork.config import StagingSettings
from handiwork.model.attachment import MemoryStoreRef, SkillRef
from handiwork.model.errors import BrainUnavailableError, UnauthorizedError
from handiwork.model.session import SessionState, WaitingKind
from handiwork.sessions import attachments
from handiwork.sessions.attachments import Sources
from handiwork.sessions.skills import SkillShelf
from handiwork.store.archive_cache import ArchiveCache
from handiwork.testing.resources import FakeMemories, FakeSkills
from session_world import World, call, text, until

STORE = MemoryStoreRef(store_id="memstore_1", mount_path="/mnt/memory/notes")
SKILL = SkillRef(skill_id="skill_1")


class Bringing(World):
    """A world whose sessions bring something along."""

    def __init__(self, root: Path) -> None:
        super().__init__(root / "boxes")
        (root / "boxes").mkdir()
        (root / "store").mkdir()
        (root / "store/in.csv").write_bytes(b"1,2")
        self.skills, self.memories = FakeSkills(), FakeMemories("memstore_1")
        self.skills.put("skill_1", "demo", zipped({"demo/SKILL.md": b"# hi"}))
        self.memories.put("memstore_1", "/a", "one")
        self.sources = Sources(
            skills=self.skills,
            memories=self.memories,
            shelf=SkillShelf(ArchiveCache(root / "cache")),
            staging=StagingSettings(files_dir=str(root / "store")),
        )

    def box(self) -> Path:
        (sandbox,) = self.driver.live.values()
        return sandbox.root

    async def waiting(self) -> list[tuple[WaitingKind, str]]:
        session = await self.store.sessions.get("sesn_1")
        return [(one.kind, one.name) for one in session.waiting]


@pytest.fixture
def world(tmp_path: Path) -> Bringing:
    return Bringing(tmp_path)


async def test_all_is_there_before_the_first_call_and_gone_at_rest(world: Bringing) -> None:
    world.settings = world.settings.__class__(
        sessions=world.settings.sessions.__class__(idle_seconds=0.3),
        sandbox=world.settings.sandbox,
    )
    async with world:
        world.agent(
            skills=[SKILL], memory_stores=[STORE], metadata={"handiwork.file.in.csv": "in.csv"}
        )
        world.brain.say(
            "sesn_1",
            call("c1", "cat in.csv skills/demo/SKILL.md ../mnt/memory/notes/a"),
            call("c2", "printf two > ../mnt/memory/notes/b"),
        )
        results = {one.tool_use_id: one for one in await world.posted(2)}
        assert text(results["c1"]) == "1,2# hione"
        root = world.box()
        await world.session_in("sleeping")
        assert world.memories.contents("memstore_1") == {"/a": "one", "/b": "two"}
        assert not (root / "mnt/memory/notes").exists()
        assert not (root / "workspace/skills/demo").exists()
        assert (root / "workspace/in.csv").exists()


async def test_a_bad_skill_is_shown_and_the_session_served(world: Bringing) -> None:
    world.skills.put("skill_2", "bad", b"no archive")
    async with world:
        world.agent(skills=[SkillRef(skill_id="skill_2"), SKILL])
        world.brain.say("sesn_1", call("c1", "ls skills"))
        assert text((await world.posted(1))[0]) == "demo"
        await until_waiting(world, (WaitingKind.SKILL, "skill_2"))


async def test_memory_that_cannot_be_mounted_refuses_the_session(world: Bringing) -> None:
    world.memories.failing = UnauthorizedError("memory stores need the session's own token")
    async with world:
        world.agent(memory_stores=[STORE])
        world.brain.say("sesn_1", call("c1"))
        (result,) = await world.posted(1)
        assert result.is_error
        assert "need the session's own token" in text(result)
        session = await world.session_in("refused")
        assert session.state is SessionState.REFUSED
        assert "own token" in session.reason
        await until_waiting(world, (WaitingKind.MEMORY_STORE, STORE.mount_path))
        await until(lambda: not world.driver.live)


async def test_a_brain_that_is_away_for_a_moment_is_asked_again(
    world: Bringing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachments, "PAUSE_SECONDS", 0.0)
    plain, tries = world.memories.all, []

    def once_away(*given: object, **more: object):
        tries.append(1)
        if len(tries) == 1:
            raise BrainUnavailableError("503")
        return plain(*given, **more)

    monkeypatch.setattr(world.memories, "all", once_away)
    async with world:
        world.agent(memory_stores=[STORE])
        world.brain.say("sesn_1", call("c1", "cat ../mnt/memory/notes/a"))
        assert text((await world.posted(1))[0]) == "one"
        assert await world.waiting() == []


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"handiwork.file.x": "none"}, "no file none in staging.files_dir"),
        ({"handiwork.file.x": "../in.csv"}, "cannot be staged"),
        ({"handiwork.git.x": "https://git.example.org/x"}, "staging.git_hosts does not list"),
    ],
)
async def test_what_cannot_be_staged_refuses_the_session(
    world: Bringing, metadata: dict[str, str], reason: str
) -> None:
    async with world:
        world.agent(metadata=metadata)
        world.brain.say("sesn_1", call("c1"))
        assert reason in text((await world.posted(1))[0])
        await until_waiting(world, (WaitingKind.STAGING, ""))


async def test_without_sources_nothing_is_taken_for_there(world: Bringing) -> None:
    world.sources = Sources()
    async with world:
        world.agent(skills=[SKILL], memory_stores=[STORE])
        world.brain.say("sesn_1", call("c1"))
        assert "not served here" in text((await world.posted(1))[0])


async def test_what_changed_is_saved_when_the_session_is_cut_short(world: Bringing) -> None:
    async with world:
        world.agent(memory_stores=[STORE])
        world.brain.say("sesn_1", call("c1", "printf two > ../mnt/memory/notes/b; sleep 30"))
        await until(
            lambda: bool(world.driver.live) and (world.box() / "mnt/memory/notes/b").exists()
        )
        assert await world.dispatcher.stop("sesn_1")
        await world.session_in("stopped")
        assert world.memories.contents("memstore_1") == {"/a": "one", "/b": "two"}


async def until_waiting(world: Bringing, *expected: tuple[WaitingKind, str]) -> None:
    async def holds() -> bool:
        return await world.waiting() == list(expected)

    await until(holds)

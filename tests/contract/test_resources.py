"""The suite that every source of skills and memory stores passes, the fake included."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import pytest

from handiwork.brains.access import Access
from handiwork.brains.protocol import Memories, Skills
from handiwork.brains.resources import AnthropicMemories, AnthropicSkills
from handiwork.model.attachment import Memory, SkillRef
from handiwork.model.errors import BrainRefusedError, ConflictError, NotFoundError
from handiwork.model.session import WorkItem
from handiwork.testing.resources import FakeMemories, FakeSkills
from resources_server import KEY, WORK, ResourcesServer

STORE = "memstore_1"
ARCHIVE = b"an archive\0" * 1000


class Side(Protocol):
    """Both ports, the work item they are asked for, and what another client does."""

    skills: Skills
    memories: Memories
    work: WorkItem
    store_id: str
    skill: SkillRef

    async def put(self, path: str, content: str) -> None: ...


class FakeSide:
    def __init__(self) -> None:
        self.skills, self.memories = FakeSkills(), FakeMemories(STORE)
        self.skills.put("skill_1", "demo", ARCHIVE)
        self.work, self.store_id, self.skill = WORK, STORE, SkillRef(skill_id="skill_1")

    async def put(self, path: str, content: str) -> None:
        self.memories.put(STORE, path, content)


class StandInSide:
    def __init__(self, server: ResourcesServer, access: Access) -> None:
        self._server = server
        server.stores[STORE] = {}
        server.skills["skill_1"] = ("skillver_9", "demo", ARCHIVE)
        self.skills, self.memories = AnthropicSkills(access), AnthropicMemories(access)
        self.work, self.store_id, self.skill = WORK, STORE, SkillRef(skill_id="skill_1")

    async def put(self, path: str, content: str) -> None:
        self._server.put(STORE, path, content)


@contextlib.asynccontextmanager
async def _fake() -> AsyncIterator[Side]:
    yield FakeSide()


@contextlib.asynccontextmanager
async def _stand_in() -> AsyncIterator[Side]:
    async with ResourcesServer().listening() as server:
        access = Access(environment_key=KEY, base_url=server.url)
        access.open(WORK)
        yield StandInSide(server, access)
        await access.close()


@pytest.fixture(params=[_fake, _stand_in], ids=["fake", "sdk on a stand-in"])
async def side(request: pytest.FixtureRequest) -> AsyncIterator[Side]:
    make: Callable[[], contextlib.AbstractAsyncContextManager[Side]] = request.param
    async with make() as made:
        yield made


async def listed(side: Side, *, contents: bool = False) -> dict[str, Memory]:
    found = side.memories.all(side.work, side.store_id, contents=contents)
    async with contextlib.aclosing(found):
        return {one.path: one async for one in found}


async def test_a_skill_is_resolved_and_downloaded(side: Side) -> None:
    version = await side.skills.version(side.work, side.skill)
    assert (version.skill_id, version.name) == (side.skill.skill_id, "demo")
    exact = SkillRef(skill_id=side.skill.skill_id, version=version.id)
    assert await side.skills.version(side.work, exact) == version
    assert await side.skills.archive(side.work, version, 1 << 20) == ARCHIVE


async def test_a_skill_that_is_not_there_or_too_large(side: Side) -> None:
    with pytest.raises(NotFoundError):
        await side.skills.version(side.work, SkillRef(skill_id="skill_none"))
    version = await side.skills.version(side.work, side.skill)
    with pytest.raises(BrainRefusedError, match="larger than 1000 bytes"):
        await side.skills.archive(side.work, version, 1000)


async def test_memories_are_created_changed_listed_and_deleted(side: Side) -> None:
    made = await side.memories.create(side.work, side.store_id, "/a/b.md", "one")
    assert made.path == "/a/b.md"
    changed = await side.memories.update(side.work, side.store_id, made, "two ü")
    assert changed.id == made.id
    assert changed.sha256 != made.sha256
    assert (await side.memories.get(side.work, side.store_id, made.id)).content == "two ü"
    assert (await listed(side, contents=True))["/a/b.md"].content == "two ü"
    basic = (await listed(side))["/a/b.md"]
    assert (basic.content, basic.sha256) == (None, changed.sha256)
    await side.memories.delete(side.work, side.store_id, changed)
    assert await listed(side) == {}


async def test_a_lost_race_changes_nothing(side: Side) -> None:
    stale = await side.memories.create(side.work, side.store_id, "/a", "one")
    await side.put("/a", "theirs")
    with pytest.raises(ConflictError):
        await side.memories.update(side.work, side.store_id, stale, "ours")
    with pytest.raises(ConflictError):
        await side.memories.delete(side.work, side.store_id, stale)
    with pytest.raises(ConflictError):
        await side.memories.create(side.work, side.store_id, "/a", "ours")
    assert (await listed(side, contents=True))["/a"].content == "theirs"


async def test_what_is_not_there_or_never_taken(side: Side) -> None:
    gone = Memory(id="mem_none", path="/x", sha256="0" * 64)
    with pytest.raises(NotFoundError):
        await side.memories.update(side.work, side.store_id, gone, "x")
    with pytest.raises(NotFoundError):
        await side.memories.get(side.work, side.store_id, gone.id)
    with pytest.raises(BrainRefusedError):
        await side.memories.create(side.work, side.store_id, "/big", "x" * 102_401)


async def test_a_store_of_many_pages(side: Side) -> None:
    for number in range(45):
        await side.put(f"/{number:03}", str(number))
    assert sorted(await listed(side)) == [f"/{number:03}" for number in range(45)]
    full = await listed(side, contents=True)
    assert [full[path].content for path in sorted(full)] == [str(number) for number in range(45)]

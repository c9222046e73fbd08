"""The suite that every source of skills and memory stores passes, the fake included."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import anthropic
import pytest

from brain_process import BrainProcess, script
from handiwork.brains.access import Access
from handiwork.brains.anthropic import AnthropicBrain
from handiwork.brains.protocol import Memories, Skills
from handiwork.brains.resources import AnthropicMemories, AnthropicSkills
from handiwork.model.attachment import Memory, SkillRef
from handiwork.model.errors import BrainRefusedError, ConflictError, NotFoundError
from handiwork.model.session import WorkItem
from handiwork.testing.resources import FakeMemories, FakeSkills
from resources_server import KEY, WORK, ResourcesServer
from skill_uploads import MANIFEST

STORE = "memstore_1"
ARCHIVE = b"an archive\0" * 1000


class Side(Protocol):
    """Both ports, the work item they are asked for, and what another client does."""

    skills: Skills
    memories: Memories
    work: WorkItem
    store_id: str
    skill: SkillRef
    archive: bytes

    async def put(self, path: str, content: str) -> None: ...


class FakeSide:
    def __init__(self) -> None:
        self.skills, self.memories, self.archive = FakeSkills(), FakeMemories(STORE), ARCHIVE
        self.skills.put("skill_1", "demo-skill", ARCHIVE)
        self.work, self.store_id, self.skill = WORK, STORE, SkillRef(skill_id="skill_1")

    async def put(self, path: str, content: str) -> None:
        self.memories.put(STORE, path, content)


class StandInSide:
    def __init__(self, server: ResourcesServer, access: Access) -> None:
        self._server = server
        server.stores[STORE] = {}
        self.archive = ARCHIVE
        server.skills["skill_1"] = ("skillver_9", "demo-skill", ARCHIVE)
        self.skills, self.memories = AnthropicSkills(access), AnthropicMemories(access)
        self.work, self.store_id, self.skill = WORK, STORE, SkillRef(skill_id="skill_1")

    async def put(self, path: str, content: str) -> None:
        self._server.put(STORE, path, content)


class LocalSide:
    """The local brain: the store is mounted by a session, whose work item brings the token."""

    def __init__(self, brain: AnthropicBrain, client: anthropic.AsyncAnthropic) -> None:
        self._client = client
        self.skills, self.memories = AnthropicSkills(brain.access), AnthropicMemories(brain.access)

    async def prepare(self, brain: AnthropicBrain) -> None:
        beta = self._client.beta
        made = await beta.skills.create(files=[("demo-skill/SKILL.md", MANIFEST.encode())])
        self.skill = SkillRef(skill_id=made.id)
        content = await beta.skills.versions.download("latest", skill_id=made.id)
        self.archive = await content.read()
        self.store_id = (await beta.memory_stores.create(name="notes")).id
        agent = await beta.agents.create(name="t", model="scripted", system=script({"say": "hi"}))
        session = await beta.sessions.create(
            agent=agent.id,
            environment_id=brain.environment_id,
            resources=[{"type": "memory_store", "memory_store_id": self.store_id}],
        )
        message = {"type": "user.message", "content": [{"type": "text", "text": "go"}]}
        await beta.sessions.events.send(session.id, events=[message])
        work = None
        async with asyncio.timeout(20):
            while work is None:
                work = await brain.claim()
        self.work = work
        (declared,) = (await brain.describe(work)).memory_stores
        assert (declared.store_id, declared.mount_path) == (self.store_id, "/mnt/memory/notes")
        brain.access.open(work)

    async def put(self, path: str, content: str) -> None:
        memories = self._client.beta.memory_stores.memories
        found = [one async for one in memories.list(self.store_id) if one.path == path]
        if found:
            await memories.update(found[0].id, memory_store_id=self.store_id, content=content)
        else:
            await memories.create(self.store_id, path=path, content=content)


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


@contextlib.asynccontextmanager
async def _local() -> AsyncIterator[Side]:
    with (
        tempfile.TemporaryDirectory() as directory,
        BrainProcess.start(Path(directory) / "brain.db") as process,
    ):
        brain = AnthropicBrain(
            environment_id=process.environment_id,
            environment_key=process.environment_key,
            base_url=process.base_url,
        )
        async with anthropic.AsyncAnthropic(
            api_key=process.api_key, base_url=process.base_url
        ) as client:
            side = LocalSide(brain, client)
            await side.prepare(brain)
            yield side
            await brain.close()


@pytest.fixture(
    params=[_fake, _stand_in, _local],
    ids=["fake", "sdk on a stand-in", "sdk on the local brain"],
)
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
    assert (version.skill_id, version.name) == (side.skill.skill_id, "demo-skill")
    exact = SkillRef(skill_id=side.skill.skill_id, version=version.id)
    assert await side.skills.version(side.work, exact) == version
    assert await side.skills.archive(side.work, version, 1 << 20) == side.archive


async def test_a_skill_that_is_not_there_or_too_large(side: Side) -> None:
    with pytest.raises(NotFoundError):
        await side.skills.version(side.work, SkillRef(skill_id="skill_01none"))
    version = await side.skills.version(side.work, side.skill)
    with pytest.raises(BrainRefusedError, match="larger than 100 bytes"):
        await side.skills.archive(side.work, version, 100)


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
    gone = Memory(id="mem_01none", path="/x", sha256="0" * 64)
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

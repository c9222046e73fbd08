"""Which key is used for what, and what a failure means."""

from collections.abc import AsyncIterator

import pytest

from handiwork.brains.access import Access
from handiwork.brains.resources import AnthropicMemories, AnthropicSkills
from handiwork.model.attachment import Memory, SkillRef, SkillVersion
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    NotFoundError,
    UnauthorizedError,
)
from resources_server import KEY, TOKEN, WORK, ResourcesServer

SKILL = SkillRef(skill_id="skill_1")
MEMORY = Memory(id="mem_1", path="/a", sha256="0" * 64)


@pytest.fixture
async def server() -> AsyncIterator[ResourcesServer]:
    async with ResourcesServer().listening() as server:
        server.skills["skill_1"] = ("skillver_9", "demo", b"archive")
        server.stores["memstore_1"] = {}
        yield server


@pytest.fixture
async def access(server: ResourcesServer) -> AsyncIterator[Access]:
    access = Access(environment_key=KEY, base_url=server.url)
    access.open(WORK)
    yield access
    await access.close()


def keys(server: ResourcesServer) -> list[str]:
    return [seen.key for all_of_one in server.seen.values() for seen in all_of_one]


async def test_skills_go_with_the_token_first(server: ResourcesServer, access: Access) -> None:
    await AnthropicSkills(access).version(WORK, SKILL)
    assert keys(server) == [TOKEN]


async def test_skills_go_with_the_environment_key_where_the_token_may_not(
    server: ResourcesServer, access: Access
) -> None:
    server.skill_keys = {KEY}
    skills = AnthropicSkills(access)
    version = await skills.version(WORK, SKILL)
    assert await skills.archive(WORK, version, 100) == b"archive"
    assert keys(server) == [TOKEN, KEY, TOKEN, KEY]
    assert access.scoped(WORK) is not None


async def test_neither_key_may(server: ResourcesServer, access: Access) -> None:
    server.skill_keys = set()
    with pytest.raises(UnauthorizedError, match=r"session's token.*environment key") as raised:
        await AnthropicSkills(access).version(WORK, SKILL)
    assert not {KEY, TOKEN} & set(str(raised.value).split())


async def test_without_a_token_skills_go_and_memories_do_not(
    server: ResourcesServer, access: Access
) -> None:
    access.shut(WORK)
    assert await AnthropicSkills(access).version(WORK, SKILL)
    with pytest.raises(UnauthorizedError, match="memory stores need the session's own token"):
        await AnthropicMemories(access).create(WORK, "memstore_1", "/a", "x")
    assert keys(server) == [KEY]


async def test_answers_that_are_none(server: ResourcesServer, access: Access) -> None:
    memories = AnthropicMemories(access)
    server.judge = lambda _: (200, {"id": 7})
    with pytest.raises(BrainUnavailableError, match="names no memory"):
        await memories.get(WORK, "memstore_1", "mem_1")
    with pytest.raises(BrainUnavailableError, match="names no version"):
        await AnthropicSkills(access).version(WORK, SKILL)
    server.judge = lambda _: (200, [1])
    with pytest.raises(BrainUnavailableError, match="malformed"):
        await memories.get(WORK, "memstore_1", "mem_1")


async def test_a_listing_without_end(server: ResourcesServer, access: Access) -> None:
    server.judge = lambda _: (200, {"data": [], "next_page": "again"})
    with pytest.raises(BrainRefusedError, match="over 200 pages"):
        async for _ in AnthropicMemories(access).all(WORK, "memstore_1", contents=False):
            pass


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFoundError), (413, BrainRefusedError), (500, BrainUnavailableError)],
)
async def test_what_an_answer_means(
    server: ResourcesServer, access: Access, status: int, kind: type[Exception]
) -> None:
    server.judge = lambda _: (status, {"error": {"message": "as told"}})
    with pytest.raises(kind):
        await AnthropicMemories(access).update(WORK, "memstore_1", MEMORY, "x")


async def test_a_download_that_breaks_off(server: ResourcesServer, access: Access) -> None:
    server.judge = lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"
    version = SkillVersion(skill_id="skill_1", id="skillver_9", name="demo")
    with pytest.raises(BrainUnavailableError, match="cannot download skill"):
        await AnthropicSkills(access).archive(WORK, version, 1000)

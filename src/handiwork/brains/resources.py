"""Skills and memory stores over the official SDK, each with the key that may.

Skills: the session's token, then the environment key; which of them the service takes depends on
its version. Memory stores: the session's token alone. Answers are read leniently, and bounded.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import anthropic
import httpx2

from handiwork.brains import wire
from handiwork.brains.access import REQUEST_SECONDS, Access, body_of, told
from handiwork.model.attachment import Memory, SkillRef, SkillVersion
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    ConflictError,
    NotFoundError,
    UnauthorizedError,
)
from handiwork.model.session import WorkItem

DOWNLOAD_SECONDS = 120.0
MAX_MEMORY_PAGES = 200
"""A store holds 2,000 memories; a page of `full` holds 20."""
_FULL_PAGE, _BASIC_PAGE = 20, 100

T = TypeVar("T")
Call = Callable[[anthropic.AsyncAnthropic], Awaitable[T]]


class AnthropicSkills:
    """Skills of agents."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def version(self, work: WorkItem, skill: SkillRef) -> SkillVersion:
        """Resolve a reference."""
        answer = await self._call(
            work,
            f"read version {skill.version[:80]!r} of skill {skill.skill_id[:80]!r}",
            lambda api: api.beta.skills.versions.with_raw_response.retrieve(
                skill.version, skill_id=skill.skill_id
            ),
        )
        found = wire.read_skill({"skill_id": skill.skill_id, **(body_of(answer, "skill") or {})})
        if found is None:
            raise BrainUnavailableError("the brain's answer names no version of the skill")
        return found

    async def archive(self, work: WorkItem, version: SkillVersion, limit_bytes: int) -> bytes:
        """Download, a piece at a time."""

        async def download(api: anthropic.AsyncAnthropic) -> bytes:
            async with api.beta.skills.versions.with_streaming_response.download(
                version.id,
                skill_id=version.skill_id,
                timeout=httpx2.Timeout(REQUEST_SECONDS, read=DOWNLOAD_SECONDS),
            ) as answer:
                return await _bounded(answer.http_response, limit_bytes)

        return await self._call(work, f"download skill {version.skill_id[:80]!r}", download)

    async def _call(self, work: WorkItem, what: str, call: Call[T]) -> T:
        """Call with whichever key may; the refusal of both when none does.

        The token is not dropped by a refusal here: it may be good for everything else.
        """
        scoped = self._access.scoped(work)
        refusal = ""
        if scoped is not None:
            try:
                with told(what):
                    return await call(scoped)
            except (UnauthorizedError, NotFoundError) as error:
                refusal = f"{error} (with the session's token); "
        try:
            with told(what):
                return await call(self._access.environment)
        except UnauthorizedError as error:
            raise UnauthorizedError(f"{refusal}{error} (with the environment key)") from None


class AnthropicMemories:
    """Memory stores of sessions."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def all(
        self, work: WorkItem, store_id: str, *, contents: bool
    ) -> AsyncGenerator[Memory, None]:
        """Page through a store."""
        page: str | None = None
        for _ in range(MAX_MEMORY_PAGES):
            tree = await self._page(work, store_id, page, contents=contents)
            for one in wire.objects(tree, "data"):
                memory = wire.read_memory(one)
                if memory is not None:
                    yield memory
            page = tree.get("next_page")
            if not isinstance(page, str) or not page:
                return
        raise BrainRefusedError(f"memory store {store_id} has over {MAX_MEMORY_PAGES} pages")

    async def _page(
        self, work: WorkItem, store_id: str, page: str | None, *, contents: bool
    ) -> Mapping[str, Any]:
        answer = await self._call(
            work,
            f"list memory store {store_id}",
            lambda api: api.beta.memory_stores.memories.with_raw_response.list(
                store_id,
                view="full" if contents else "basic",
                limit=_FULL_PAGE if contents else _BASIC_PAGE,
                page=page or anthropic.omit,
            ),
        )
        return body_of(answer, "memories") or {}

    async def get(self, work: WorkItem, store_id: str, memory_id: str) -> Memory:
        """Read one."""
        return await self._memory(
            work,
            f"read a memory of {store_id}",
            lambda api: api.beta.memory_stores.memories.with_raw_response.retrieve(
                memory_id, memory_store_id=store_id, view="full"
            ),
        )

    async def create(self, work: WorkItem, store_id: str, path: str, content: str) -> Memory:
        """Add one."""
        return await self._memory(
            work,
            f"add a memory to {store_id}",
            lambda api: api.beta.memory_stores.memories.with_raw_response.create(
                store_id, path=path, content=content
            ),
        )

    async def update(self, work: WorkItem, store_id: str, memory: Memory, content: str) -> Memory:
        """Change one, if nobody else has."""
        return await self._memory(
            work,
            f"change a memory of {store_id}",
            lambda api: api.beta.memory_stores.memories.with_raw_response.update(
                memory.id,
                memory_store_id=store_id,
                content=content,
                precondition={"type": "content_sha256", "content_sha256": memory.sha256},
            ),
        )

    async def delete(self, work: WorkItem, store_id: str, memory: Memory) -> None:
        """Delete one, if nobody else has changed it."""
        await self._call(
            work,
            f"delete a memory of {store_id}",
            lambda api: api.beta.memory_stores.memories.with_raw_response.delete(
                memory.id, memory_store_id=store_id, expected_content_sha256=memory.sha256
            ),
        )

    async def _memory(self, work: WorkItem, what: str, call: Call[Any]) -> Memory:
        found = wire.read_memory(body_of(await self._call(work, what, call), "memory") or {})
        if found is None:
            raise BrainUnavailableError(f"cannot {what}: the brain's answer names no memory")
        return found

    async def _call(self, work: WorkItem, what: str, call: Call[T]) -> T:
        scoped = self._access.scoped(work)
        if scoped is None:
            raise UnauthorizedError(
                f"cannot {what}: memory stores need the session's own token, and the work item"
                " brought none, or it has expired"
            )
        with told(what):
            try:
                return await call(scoped)
            except anthropic.ConflictError as error:
                raise ConflictError(f"cannot {what}: {error.message}") from None


async def _bounded(response: httpx2.Response, limit_bytes: int) -> bytes:
    content = bytearray()
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > limit_bytes:
            raise BrainRefusedError(f"the download is larger than {limit_bytes} bytes")
    return bytes(content)

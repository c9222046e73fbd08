"""Skills and memory stores in memory: the fakes behind the ports of `brains/protocol.py`.

Tests put in `archives` and memories, and make it fail with `failing`.
"""

import hashlib
from collections.abc import AsyncGenerator

from handiwork.model.attachment import Memory, SkillRef, SkillVersion
from handiwork.model.errors import (
    BrainRefusedError,
    ConflictError,
    HandiworkError,
    NotFoundError,
)
from handiwork.model.session import WorkItem

MAX_CONTENT_BYTES = 102_400


class FakeSkills:
    """Skills by id; each has one version, `latest`. `downloads` counts archives given out."""

    def __init__(self) -> None:
        self.archives: dict[str, tuple[SkillVersion, bytes]] = {}
        self.downloads = 0
        self.failing: HandiworkError | None = None

    def put(self, skill_id: str, name: str, archive: bytes, version_id: str = "skillver_1") -> None:
        """Add a skill, or give it a newer version."""
        self.archives[skill_id] = (
            SkillVersion(skill_id=skill_id, id=version_id, name=name),
            archive,
        )

    async def version(self, work: WorkItem, skill: SkillRef) -> SkillVersion:
        """Return the one version."""
        version, _ = self._get(skill.skill_id)
        if skill.version not in ("latest", version.id):
            raise NotFoundError(f"no version {skill.version} of {skill.skill_id}")
        return version

    async def archive(self, work: WorkItem, version: SkillVersion, limit_bytes: int) -> bytes:
        """Return its archive."""
        _, archive = self._get(version.skill_id)
        if len(archive) > limit_bytes:
            raise BrainRefusedError(f"the download is larger than {limit_bytes} bytes")
        self.downloads += 1
        return archive

    def _get(self, skill_id: str) -> tuple[SkillVersion, bytes]:
        if self.failing is not None:
            raise self.failing
        if skill_id not in self.archives:
            raise NotFoundError(f"no skill {skill_id}")
        return self.archives[skill_id]


class FakeMemories:
    """Memory stores by id, their memories by path."""

    def __init__(self, *stores: str) -> None:
        self.stores: dict[str, dict[str, Memory]] = {store: {} for store in stores}
        self.failing: HandiworkError | None = None
        self._count = 0

    def put(self, store_id: str, path: str, content: str) -> Memory:
        """Write one, as another client does."""
        former = self.stores[store_id].get(path)
        if former is None:
            self._count += 1
        made = _memory(former.id if former else f"mem_{self._count}", path, content)
        self.stores[store_id][path] = made
        return made

    def contents(self, store_id: str) -> dict[str, str | None]:
        """Return the contents by path."""
        return {path: one.content for path, one in self.stores[store_id].items()}

    async def all(
        self, work: WorkItem, store_id: str, *, contents: bool
    ) -> AsyncGenerator[Memory, None]:
        """Yield them by path."""
        for _, one in sorted(self._store(store_id).items()):
            yield one if contents else Memory(id=one.id, path=one.path, sha256=one.sha256)

    async def get(self, work: WorkItem, store_id: str, memory_id: str) -> Memory:
        """Return one."""
        for one in self._store(store_id).values():
            if one.id == memory_id:
                return one
        raise NotFoundError(f"no memory {memory_id}")

    async def create(self, work: WorkItem, store_id: str, path: str, content: str) -> Memory:
        """Add one where there is none."""
        if path in self._store(store_id):
            raise ConflictError(f"{path} exists")
        _check(content)
        return self.put(store_id, path, content)

    async def update(self, work: WorkItem, store_id: str, memory: Memory, content: str) -> Memory:
        """Change one that is as it was."""
        known = await self.get(work, store_id, memory.id)
        if known.sha256 != memory.sha256:
            raise ConflictError(f"{known.path} has changed")
        _check(content)
        return self.put(store_id, known.path, content)

    async def delete(self, work: WorkItem, store_id: str, memory: Memory) -> None:
        """Delete one that is as it was."""
        known = await self.get(work, store_id, memory.id)
        if known.sha256 != memory.sha256:
            raise ConflictError(f"{known.path} has changed")
        del self.stores[store_id][known.path]

    def _store(self, store_id: str) -> dict[str, Memory]:
        if self.failing is not None:
            raise self.failing
        if store_id not in self.stores:
            raise NotFoundError(f"no memory store {store_id}")
        return self.stores[store_id]


def _memory(memory_id: str, path: str, content: str) -> Memory:
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Memory(id=memory_id, path=path, sha256=digest, content=content)


def _check(content: str) -> None:
    if len(content.encode()) > MAX_CONTENT_BYTES:
        raise BrainRefusedError("the content is too large")

"""Skills of a session's agent: downloaded, kept on the host, unpacked, written into its sandbox."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence

from handiwork.brains.protocol import Skills
from handiwork.model.attachment import SkillRef, SkillVersion
from handiwork.model.errors import GuestError, HandiworkError
from handiwork.model.session import WorkItem
from handiwork.observe import log
from handiwork.sandboxes.protocol import Files
from handiwork.sessions.archives.rules import ArchiveError, ArchiveFile
from handiwork.sessions.archives.unpack import unpack
from handiwork.store.archive_cache import ArchiveCache

SKILLS_DIRECTORY = "/workspace/skills"
MAX_SKILLS = 64
MAX_ARCHIVE_BYTES = 32 * 1024 * 1024
UNPACK_SECONDS = 20.0
PARALLEL_UNPACKS = 2

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class SkillShelf:
    """The skills of this host: each version is downloaded once while the cache keeps it."""

    def __init__(self, cache: ArchiveCache) -> None:
        self._cache = cache
        self._unpacking = asyncio.Semaphore(PARALLEL_UNPACKS)
        self._log = log.get("skills")

    async def contents(
        self, skills: Skills, work: WorkItem, version: SkillVersion
    ) -> tuple[ArchiveFile, ...]:
        """Return a version's files; ArchiveError for an archive against the rules.

        The brain was asked for the version first, so whoever may not have it does not get here.
        """
        key = f"{work.environment_id}/{version.skill_id}/{version.id}"
        kept = await self._cache.get(key)
        if kept is None:
            kept = await skills.archive(work, version, MAX_ARCHIVE_BYTES)
            files = await self._unpacked(kept)
            try:
                await self._cache.put(key, kept)
            except OSError as error:
                self._log.warning("skill not kept", skill=version.skill_id, reason=error.strerror)
            return files
        return await self._unpacked(kept)

    async def _unpacked(self, archive: bytes) -> tuple[ArchiveFile, ...]:
        async with self._unpacking:
            end = time.monotonic() + UNPACK_SECONDS
            files = await asyncio.to_thread(unpack, archive, expired=lambda: time.monotonic() > end)
        if not files:
            raise ArchiveError("the archive holds no file")
        return files


class SessionSkills:
    """The skills of one session in its sandbox; `claim` is told each directory before it is written."""

    def __init__(
        self,
        shelf: SkillShelf,
        skills: Skills,
        work: WorkItem,
        claim: Callable[[str], Awaitable[None]],
    ) -> None:
        self._claim = claim
        self._shelf = shelf
        self._skills = skills
        self._work = work
        self._names: list[str] = []

    async def attach(self, declared: Sequence[SkillRef], files: Files) -> dict[str, str]:
        """Write each into the sandbox, anew; return those that failed, by skill, and why."""
        failed = {one.skill_id: f"more than {MAX_SKILLS} skills" for one in declared[MAX_SKILLS:]}
        for skill in declared[:MAX_SKILLS]:
            try:
                await self._attach(skill, files)
            except HandiworkError as error:
                failed[skill.skill_id] = str(error)
        return failed

    async def detach(self, files: Files) -> None:
        """Take them away again."""
        while self._names:
            await _removed(files, f"{SKILLS_DIRECTORY}/{self._names.pop()}")

    def forget(self) -> None:
        """Take them as not attached: they went with the files of the sandbox."""
        self._names.clear()

    async def _attach(self, skill: SkillRef, files: Files) -> None:
        version = await self._skills.version(self._work, skill)
        name = directory_name(version)
        if name in self._names:
            raise HandiworkError(f"another skill of this agent is named {name} as well")
        contents = await self._shelf.contents(self._skills, self._work, version)
        await self._claim(f"{SKILLS_DIRECTORY}/{name}")
        await install(files, name, contents)
        self._names.append(name)


async def install(files: Files, name: str, contents: Sequence[ArchiveFile]) -> None:
    """Write a skill's files into the sandbox, in place of what stands there."""
    place = f"{SKILLS_DIRECTORY}/{name}"
    await _removed(files, place)
    await files.mkdir(place)
    for one in contents:
        await files.write(f"{place}/{one.path}", one.data, mode=one.mode)


def directory_name(version: SkillVersion) -> str:
    """Return the directory of a skill: its name where that is a plain one, else its id."""
    for candidate in (version.name.strip().rpartition("/")[2], version.skill_id):
        if _NAME.fullmatch(candidate):
            return candidate
    raise HandiworkError(f"the skill {version.skill_id[:80]!r} has no name for a directory")


async def _removed(files: Files, path: str) -> None:
    """Remove whatever is at a path; nothing there is fine."""
    try:
        await files.stat(path, follow=False)
    except GuestError:
        return
    await files.remove(path, recursive=True)

"""What a session brings along: staged files, memory stores and skills, in its sandbox.

All of it is there before the first tool runs. Staging and memory are promises to the agent: where
one cannot be kept the session is refused, for an agent that was told of files that are not there
works on air. A skill that fails is told, and the session goes on without it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from handiwork.brains.protocol import Memories, Skills
from handiwork.config import StagingSettings
from handiwork.model.errors import BrainUnavailableError, HandiworkError
from handiwork.model.session import BrainSession, WaitingKind, WorkItem
from handiwork.sandboxes.protocol import Files, Sandbox
from handiwork.sessions.journal import Journal
from handiwork.sessions.memory.stores import SessionMemories
from handiwork.sessions.skills import SessionSkills, SkillShelf
from handiwork.sessions.staging import wishes as staging_wishes
from handiwork.sessions.staging.stage import stage

NO_SOURCE = "this environment has no source of them"
TRIES = 3
PAUSE_SECONDS = 1.0
HASTY_SECONDS = 3.0

T = TypeVar("T")
Claim = Callable[[str], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where attachments come from; what is absent cannot be had."""

    skills: Skills | None = None
    memories: Memories | None = None
    shelf: SkillShelf | None = None
    staging: StagingSettings = field(default_factory=StagingSettings)


class Attachments:
    """The attachments of one work item's session. `use` returns its sandbox, awake.

    `claim` is told each path before anything is written there.
    """

    def __init__(
        self,
        sources: Sources,
        work: WorkItem,
        journal: Journal,
        use: Callable[[], Awaitable[Sandbox]],
        claim: Claim,
    ) -> None:
        self._sources = sources
        self._journal = journal
        self._use = use
        self._memories = SessionMemories(work, journal, use, claim)
        self._skills: SessionSkills | None = None
        if sources.skills is not None and sources.shelf is not None:
            self._skills = SessionSkills(sources.shelf, sources.skills, work, claim)

    async def attach(self, view: BrainSession, *, fresh: bool) -> None:
        """Put everything in place; what refuses the session is told and raised.

        `fresh` is a sandbox that never served before.
        """
        wanted = any(
            key.startswith((staging_wishes.GIT_PREFIX, staging_wishes.FILE_PREFIX))
            for key in view.metadata
        )
        if not (wanted or view.memory_stores or view.skills):
            return
        sandbox = await self._use()
        if wanted:
            await self._stage(view, sandbox)
        await _patiently(
            lambda: self._memories.attach(
                self._sources.memories, view.memory_stores, sandbox.files, fresh=fresh
            )
        )
        await self._attach_skills(view, sandbox.files)

    async def renew(self, view: BrainSession) -> None:
        """Put everything in place again: the sandbox's files were replaced under the session."""
        self._memories.touch()
        if self._skills is not None:
            self._skills.forget()
        if view.skills:
            await self._attach_skills(view, (await self._use()).files)

    async def follow(self) -> None:
        """Keep what changes in step, until cancelled."""
        await self._memories.follow()

    def touch(self) -> None:
        """Say that a tool call has ended."""
        self._memories.touch()

    async def finish(self) -> None:
        """Bring in what changed and take everything away: none of it is the workspace's."""
        await self._memories.finish()
        if self._skills is None:
            return
        try:
            await self._skills.detach((await self._use()).files)
        except HandiworkError as error:
            self._journal.note("skills.not_removed", reason=str(error))

    async def save(self) -> None:
        """Bring in what changed, in haste: the session is cut short."""
        await self._memories.finish(seconds=HASTY_SECONDS, final=False)

    async def _stage(self, view: BrainSession, sandbox: Sandbox) -> None:
        settings = self._sources.staging
        try:
            wishes = staging_wishes.read(view.metadata, settings.git_hosts)
            await stage(sandbox, wishes, settings)
        except HandiworkError as error:
            self._journal.waits(WaitingKind.STAGING, str(error))
            raise
        self._journal.waits_no_more(WaitingKind.STAGING)

    async def _attach_skills(self, view: BrainSession, files: Files) -> None:
        failed = dict.fromkeys((one.skill_id for one in view.skills), NO_SOURCE)
        if self._skills is not None:
            failed = await self._skills.attach(view.skills, files)
        for skill_id, reason in failed.items():
            self._journal.waits(WaitingKind.SKILL, reason, name=skill_id)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    """Try again while the brain is only away for a moment."""
    for attempt in range(1, TRIES):
        try:
            return await call()
        except BrainUnavailableError:
            await asyncio.sleep(PAUSE_SECONDS * attempt)
    return await call()

"""The isolate tier: sandboxes that are a workspace and, while they run code, a cell of each language."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from handiwork.model.code import LANGUAGES, Language
from handiwork.model.errors import (
    ConflictError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.sandbox import Limits, SandboxSpec
from handiwork.sandboxes.isolate import tree
from handiwork.sandboxes.isolate.cells import Cell
from handiwork.sandboxes.isolate.pool import Pool
from handiwork.sandboxes.isolate.sandbox import IsolateSandbox
from handiwork.sandboxes.isolate.states import WORKSPACE, States
from handiwork.sandboxes.isolate.workspace import Quota, Workspace
from handiwork.sandboxes.isolate.zygotes import PROGRAM, Cage, Shape
from handiwork.sandboxes.protocol import Wish
from handiwork.sandboxes.snapshots.owners import Range
from handiwork.sandboxes.snapshots.protocol import Make, Origin

WORKSPACE_MIB = 1024
"""The most of a workspace, whatever more disk a sandbox may have."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class IsolateDriver:
    """Sandboxes below one directory. Cells are made by pools, which are there while a sandbox is."""

    tier = "isolate"

    def __init__(
        self, directory: Path, *, user_id: int, memory_mib: int = 128, program: Path = PROGRAM
    ) -> None:
        """`user_id`: the host's id of all cells, 0 for our own; `memory_mib`: the most of a cell."""
        self._states = States(directory / "isolate")
        self._user_id = user_id
        self._memory_mib = memory_mib
        self._program = program
        self._open: dict[str, IsolateSandbox] = {}
        self._pools: dict[Language, Pool] = {}
        self._ready = 0
        self._changing = asyncio.Lock()

    @property
    def ready(self) -> Mapping[Language, int]:
        """How many cells of each language stand ready."""
        return {language: pool.ready for language, pool in self._pools.items()}

    async def create(self, spec: SandboxSpec) -> IsolateSandbox:
        """Make a new sandbox; ConflictError when state of its id exists, UnsupportedError for its limits."""
        self._check(spec.limits)
        self._states.make(spec.id)
        return self._opened(spec)

    async def restore(self, spec: SandboxSpec) -> IsolateSandbox:
        """Wake one; NotFoundError when it has no state. Its globals are gone, its files are there."""
        self._check(spec.limits)
        if spec.id in self._open:
            raise ConflictError(f"sandbox {spec.id} runs")
        return self._opened(spec)

    async def sleep(self, sandbox_id: str) -> None:
        """End its cells and close its files. No-op when it sleeps; NotFoundError without state."""
        self._states.workspace(sandbox_id)
        await self._shut(sandbox_id)

    async def destroy(self, sandbox_id: str) -> None:
        """End its cells and delete its files. No-op when there is nothing."""
        await self._shut(sandbox_id)
        await asyncio.to_thread(self._states.remove, sandbox_id)

    def can_fork(self, sandbox_id: str) -> bool:
        """Whether it is there."""
        return sandbox_id in self._states.ids()

    async def fork(self, source: str, target: str) -> None:
        """Make a sandbox that sleeps with the files that another has at this moment."""
        running = self._open.get(source)
        if running is not None:
            self._states.make(target, running.workspace())
            return
        with self._states.open(source, Quota()) as workspace:
            self._states.make(target, workspace)

    async def prepare(self, wishes: Sequence[Wish]) -> None:
        """Have as many cells of each language stand ready as sandboxes are wished."""
        self._ready = sum(wish.sandboxes for wish in wishes)
        for language in LANGUAGES if self._ready else ():
            await self._pool(language)
        for pool in self._pools.values():
            pool.resize(self._ready)
        self._states.keep_ready(self._ready)
        await self._let_go()

    async def leftovers(self) -> list[str]:
        """Return the ids of sandboxes that have state."""
        return self._states.ids()

    def origin(self, sandbox_id: str) -> Origin:
        """Tell what a state is; NotFoundError when its files are not on this host."""
        running = self._open.get(sandbox_id)
        if running is not None:
            name = running.workspace().name
        else:
            with self._states.open(sandbox_id, Quota()) as workspace:
                name = workspace.name
        return Origin(tree.IMAGE, Range(0, os.geteuid()), f"{sandbox_id}/{name}")

    @contextlib.asynccontextmanager
    async def still(self, sandbox_id: str) -> AsyncIterator[tree.WorkspaceTree]:
        """Yield its files; nothing is to be held still, for a walk sees all of them of one moment."""
        yield tree.WorkspaceTree(self._states.workspace(sandbox_id))

    async def settle(self, sandbox_id: str, disk_mib: int) -> None:
        """Do nothing: no two share a file."""

    async def remake(
        self, sandbox_id: str, image: str, disk_mib: int, make: Make, *, forked: bool = False
    ) -> None:
        """Put the files of a tree that `make` makes in the place of the sandbox's, in one step."""
        del forked  # it has no machine-id
        if image != tree.IMAGE:
            raise UnsupportedError(
                "it is a snapshot of a Linux sandbox: use a tier of those for it, not isolate"
            )
        if sandbox_id in self._open:
            raise ConflictError(f"sandbox {sandbox_id} is running")
        target = self._states.path(sandbox_id) / WORKSPACE
        quota = Quota(bytes=min(disk_mib, WORKSPACE_MIB) << 20)
        with self._states.staged() as beside:
            await _make_in(beside, make)
            made = beside / WORKSPACE
            try:
                await asyncio.to_thread(tree.make_of, beside, made, quota)
                await asyncio.to_thread(tree.put_in_place, made, target)
            except (OSError, sqlite3.Error) as error:
                raise SandboxUnavailableError(
                    f"the files of {sandbox_id} could not be made: {error}"
                ) from error

    async def protections(self) -> Mapping[str, bool]:
        """Return what holds for cells on this host, by name; SandboxUnavailableError, UnsupportedError."""
        pool = await self._pool("javascript")
        try:
            holds = await pool.holds()
        finally:
            await self._let_go()
        return {str(one.name).lower(): one in holds for one in Cage}

    def _check(self, limits: Limits) -> None:
        if limits.disk_rates():
            raise UnsupportedError(
                "the isolate tier bounds no rate of a disk: leave out limits.disk_*_mib_per_second, or"
                " use another tier"
            )
        if limits.memory_mib < self._memory_mib:
            raise UnsupportedError(
                f"limits.memory_mib = {limits.memory_mib}: a cell here may use {self._memory_mib};"
                " give at least that, or lower sandbox.isolate.memory_mib"
            )

    def _opened(self, spec: SandboxSpec) -> IsolateSandbox:
        self._states.workspace(spec.id)

        def opened() -> Workspace:
            return self._states.open(spec.id, _quota(spec.limits))

        at_once = min(spec.limits.memory_mib // self._memory_mib, spec.limits.pids)
        sandbox = IsolateSandbox(spec, opened, self._take, runs_at_once=at_once)
        self._open[spec.id] = sandbox
        return sandbox

    async def _take(self, language: Language) -> Cell:
        return await (await self._pool(language)).take()

    async def _pool(self, language: Language) -> Pool:
        pool = self._pools.get(language)
        if pool is None:
            async with self._changing:
                pool = self._pools.get(language) or await self._started(language)
        return pool

    async def _started(self, language: Language) -> Pool:
        shape = Shape(
            language=language, memory_mib=self._memory_mib, data_mib=self._memory_mib + 64
        )
        pool = Pool(
            shape,
            size=self._ready,
            user_id=self._user_id,
            program=self._program,
            beside=lambda: self._states.keep_ready(self._ready),
        )
        await pool.__aenter__()
        self._pools[language] = pool
        return pool

    async def _shut(self, sandbox_id: str) -> None:
        sandbox = self._open.pop(sandbox_id, None)
        if sandbox is not None:
            sandbox.close()
        await self._let_go()

    async def _let_go(self) -> None:
        """End the pools when nobody is there who could want a cell."""
        async with self._changing:
            if self._open or self._ready:
                return
            for language in LANGUAGES:
                pool = self._pools.pop(language, None)
                if pool is not None:
                    await pool.__aexit__(None, None, None)


async def _make_in(beside: Path, make: Make) -> None:
    place = os.open(beside, _DIRECTORY)
    try:
        await make(place, Range(0, os.geteuid()))
    finally:
        os.close(place)


def _quota(limits: Limits) -> Quota:
    return Quota(bytes=min(limits.disk_mib, WORKSPACE_MIB) << 20)

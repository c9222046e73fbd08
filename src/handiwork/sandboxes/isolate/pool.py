"""Cells that stand ready: forked before somebody asks, from a zygote that is replaced by age.

All cells of a zygote have the addresses, the hash seed and the canaries it had, so none serves for
ever. One that is replaced lives on until its last cell has ended.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Self

import msgspec
import structlog

from handiwork.model.errors import HandiworkError, SandboxUnavailableError
from handiwork.sandboxes.isolate.cells import Cell
from handiwork.sandboxes.isolate.zygotes import PROGRAM, Cage, Shape, Zygote

_LOG = structlog.get_logger("sandboxes.isolate.pool")
RETRY_SECONDS = 5.0
REFILL_SECONDS = 0.005


class Renewal(msgspec.Struct, frozen=True, kw_only=True):
    """When a zygote is replaced: after so many forks, or so long."""

    forks: int = 2_000
    seconds: float = 1_800.0


class Pool:
    """Used as a context manager; every cell of it ends with it. `size` cells stand ready."""

    def __init__(
        self,
        shape: Shape,
        *,
        size: int,
        user_id: int,
        renewal: Renewal | None = None,
        program: Path = PROGRAM,
        clock: Callable[[], float] | None = None,
        beside: Callable[[], None] = lambda: None,
    ) -> None:
        """`beside` is called for each cell that was made to stand ready: what goes with it is made there."""
        self._shape = shape
        self._size = size
        self._user_id = user_id
        self._renewal = renewal or Renewal()
        self._program = program
        self._beside = beside
        self._clock = clock or asyncio.get_running_loop().time
        self._zygote: Zygote | None = None
        self._since = 0.0
        self._closed = False
        self._starting = asyncio.Lock()
        self._ready: deque[Cell] = deque()
        self._wanted = asyncio.Event()
        self._group = asyncio.TaskGroup()
        self._filling: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._wanted.set()
        self._filling = self._group.create_task(self._fill())
        return self

    async def __aexit__(self, *problem: object) -> None:
        for task in (self._filling, *self._retiring):
            if task is not None:
                task.cancel()
        try:
            await self._group.__aexit__(None, None, None)
        finally:
            self._discard_ready()
            self._closed = True
            if self._zygote is not None:
                await self._zygote.close()

    @property
    def ready(self) -> int:
        """How many stand ready now."""
        return sum(cell.alive for cell in self._ready)

    async def holds(self) -> Cage:
        """Return what holds for its cells; SandboxUnavailableError, UnsupportedError when it has none."""
        return (await self._current()).holds

    def resize(self, size: int) -> None:
        """Have another number stand ready from now on."""
        self._size = size
        while len(self._ready) > size:
            self._ready.pop().close()
        self._wanted.set()

    async def take(self) -> Cell:
        """Return a cell that ran nothing of anybody yet, the caller's from now on; SandboxUnavailableError."""
        if self._closed:
            raise SandboxUnavailableError("the pool of cells is closed")
        self._wanted.set()
        while self._ready:
            cell = self._ready.popleft()
            if cell.alive:
                return cell
        return await self._forked()

    async def _forked(self) -> Cell:
        return await Cell.fork(await self._current())

    async def _current(self) -> Zygote:
        """Return the zygote that forks now; what stands ready of one that was replaced is given up."""
        async with self._starting:
            if self._zygote is None or self._is_old(self._zygote):
                made = await Zygote.start(self._shape, user_id=self._user_id, program=self._program)
                former, self._zygote, self._since = self._zygote, made, self._clock()
                self._give_up(former)
            return self._zygote

    def _is_old(self, zygote: Zygote) -> bool:
        age = self._clock() - self._since
        return (
            not zygote.alive or zygote.forked >= self._renewal.forks or age >= self._renewal.seconds
        )

    def _give_up(self, former: Zygote | None) -> None:
        if former is None:
            return
        self._discard_ready()
        task = self._group.create_task(self._retire(former))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    def _discard_ready(self) -> None:
        while self._ready:
            self._ready.pop().close()

    async def _retire(self, zygote: Zygote) -> None:
        try:
            await zygote.emptied()
        finally:
            await zygote.close()

    async def _fill(self) -> None:
        while True:
            await self._wanted.wait()
            if self._ready:  # whoever took one is to run before the next is made
                await asyncio.sleep(REFILL_SECONDS)
            self._wanted.clear()
            try:
                await self._fill_up()
            except (HandiworkError, OSError) as error:
                _LOG.warning("no cell can stand ready", reason=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RETRY_SECONDS):
                        await self._wanted.wait()
                self._wanted.set()

    async def _fill_up(self) -> None:
        self._ready = deque(cell for cell in self._ready if cell.alive)
        while len(self._ready) < self._size:
            cell = await self._forked()
            if not cell.alive:
                raise SandboxUnavailableError("a cell ended before anybody asked for it")
            try:
                await cell.warm_up()
                self._beside()
            except BaseException:
                cell.close()
                raise
            if len(self._ready) < self._size and not self._closed:
                self._ready.append(cell)
            else:  # fewer are wanted by now
                cell.close()

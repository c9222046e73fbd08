"""Threads of their own for what copies and flushes whole disks: everything else waits for none of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager

PARALLEL = 2
"""So many copy at once; the others wait."""


class Copying:
    """The threads of one driver: one for each place, and as many for what nobody waits for."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="copying")
        self._places = asyncio.Semaphore(PARALLEL)
        self._behind = ThreadPoolExecutor(PARALLEL, thread_name_prefix="flushing")

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Executor]:
        """Wait for a place and yield the threads, of which one is free meanwhile.

        Take it before anything is held still for what runs there.
        """
        async with self._places:
            yield self._threads

    def later(self, call: Callable[[], None], failed: Callable[[str], None]) -> None:
        """Run what nobody waits for, few at once; `failed` is told why one could not be done."""
        running = asyncio.get_running_loop().run_in_executor(self._behind, call)
        running.add_done_callback(lambda done: _tell(done, failed))


def _tell(done: "asyncio.Future[None]", failed: Callable[[str], None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        failed(str(error))

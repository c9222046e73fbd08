"""Runs of tools that end when they like: cancelling one never takes longer than a short grace."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from handiwork.model.errors import ToolFailedError
from handiwork.observe import log

GRACE_SECONDS = 0.25
"""What a cancelled run gets to clean up before nobody waits for it."""

AGAIN_SECONDS = 5.0
"""A run that swallowed its cancellation is cancelled again this much later."""

MAX_STRAGGLERS = 64

T = TypeVar("T")


class Stragglers:
    """Owns runs that a session would have to wait for.

    A tool may catch its cancellation or take long to clean up; Python cannot end it. Such a run is
    kept and cancelled again and again; its result goes nowhere. With too many of them no further
    run is started.
    """

    def __init__(self) -> None:
        # Never left, because leaving waits for all; no child of it fails, so it never ends its owner.
        self._group: asyncio.TaskGroup | None = None
        self._left: set[asyncio.Task[None]] = set()
        self._log = log.get("stragglers")

    def __len__(self) -> int:
        """Return how many runs outlived their cancellation."""
        return len(self._left)

    async def run(self, body: Coroutine[Any, Any, T], name: str) -> T:
        """Run the body to its result. Cancelled, it cancels the body and waits for the grace."""
        if len(self._left) >= MAX_STRAGGLERS:
            body.close()
            raise ToolFailedError(
                f"{len(self._left)} cancelled runs of tools have not ended; none is started"
            )
        if self._group is None:
            self._group = await asyncio.TaskGroup().__aenter__()
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        task = self._group.create_task(self._guarded(body, outcome), name=name)
        try:
            return await outcome
        except asyncio.CancelledError:
            task.cancel()
            try:
                await asyncio.wait([task], timeout=GRACE_SECONDS)
            finally:
                if not task.done():
                    self._keep(task)
            raise

    async def _guarded(self, body: Coroutine[Any, Any, T], outcome: "asyncio.Future[T]") -> None:
        """Hand over how the body ends; one that nobody waits for any more fails into the log."""
        try:
            result = await body
        except asyncio.CancelledError:
            if not outcome.done():
                outcome.set_exception(ToolFailedError("the tool cancelled itself"))
            raise
        except BaseException as error:  # noqa: BLE001 - handed over, or told where nobody waits
            if outcome.done():
                self._log.warning("cancelled tool failed", error=f"{type(error).__name__}: {error}")
            else:
                outcome.set_exception(error)
        else:
            if not outcome.done():
                outcome.set_result(result)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._left.add(task)
        task.add_done_callback(self._left.discard)
        asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._again, task)

    def _again(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            self._log.warning("a cancelled tool goes on", run=task.get_name())
            task.cancel()
            asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._again, task)

"""Nothing of a machine runs, and all it wrote is on its disk: for as long as somebody reads that."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm import orders
from handiwork.sandboxes.microvm.running import Running
from handiwork.sandboxes.snapshots.stoppable import to_its_end

HOLD_SECONDS = 60.0
"""Within this a machine has written to its disk what it holds, or takes an order."""


@asynccontextmanager
async def held_still(alive: Running, moment: Callable[[], orders.Moment]) -> AsyncIterator[None]:
    """Hold a machine still; SandboxUnavailableError when it does not stand, or does not go on.

    Its agent stands still too, so that what it owes us is not late meanwhile. However often we are
    cancelled, it goes on: cut short, it would stand for good.
    """
    alive.channel.deadlines.pause()
    try:
        try:
            await _uncut(lambda: _hold(alive))
            yield
        except BaseException:
            with contextlib.suppress(SandboxUnavailableError):
                await _uncut(lambda: _let_go(alive, moment))
            raise
        await _uncut(lambda: _let_go(alive, moment))
    finally:
        alive.channel.deadlines.resume()


async def _hold(alive: Running) -> None:
    await alive.control.order(orders.hold(), HOLD_SECONDS)
    await alive.monitor.run("stop")


async def _let_go(alive: Running, moment: Callable[[], orders.Moment]) -> None:
    """Have it go on, with its clock set; one that cannot is ended: its files are on its disk."""
    try:
        await alive.monitor.run("cont")
        await alive.control.settle(HOLD_SECONDS)
        await alive.control.order(orders.resume(moment()), HOLD_SECONDS)
    except SandboxUnavailableError as error:
        alive.channel.end(f"it did not go on after its disk was read: {error}")
        raise


async def _uncut(step: Callable[[], Awaitable[None]]) -> None:
    """Take a step to its end, also when we are cancelled."""

    async def failure() -> Exception | None:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - raised below, not as one of a group
            return error
        return None

    async with asyncio.TaskGroup() as group:
        failed = await to_its_end(group.create_task(failure()), threading.Event())
    if failed is not None:
        raise failed

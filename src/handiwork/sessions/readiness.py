"""What stands ready before it is wanted: asked of each tier at the start, and whenever one was made."""

import asyncio
from collections.abc import Iterable
from typing import Never

from handiwork.config import SandboxSettings
from handiwork.model.errors import HandiworkError
from handiwork.observe import log
from handiwork.sandboxes.pool import wishes_of
from handiwork.sandboxes.protocol import Driver

PAUSE_SECONDS = 0.05
"""Who has got a sandbox works in it first; then the next ones are made ready."""

_LOG = log.get("sandboxes")


async def keep_ready(
    drivers: Iterable[Driver], settings: SandboxSettings, wanted: asyncio.Event
) -> Never:
    """Have each driver prepare what is wished of it, again each time that `wanted` is set."""
    while True:
        wanted.clear()
        for driver in drivers:
            try:
                await driver.prepare(wishes_of(settings, driver.tier))
            except HandiworkError as error:
                _LOG.warning("nothing made ready", tier=driver.tier, reason=str(error))
        await wanted.wait()
        await asyncio.sleep(PAUSE_SECONDS)

"""Control groups that are made, with their limits, before the sandboxes that they are for.

Making them takes a sandbox longer than most of its other steps. A sandbox that gets such ones has them
under the names they were made with; a former run's are no sandbox's name, and are removed.
"""

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

from handiwork.model.sandbox import Limits
from handiwork.sandboxes.cgroups import Cgroups

AHEAD = "pool-"
"""What the groups of sandboxes begin with that were made ahead; they keep them when claimed."""
READY = 4
"""So many wait of each kind."""


class Leaves:
    """Those of one driver. `prepare` runs in one task at a time; `take` is free at any moment."""

    def __init__(self, cgroups: Cgroups, *, ready: int = READY) -> None:
        self._cgroups = cgroups
        self._most = ready
        self._ready: dict[Limits, list[tuple[str, list[Path]]]] = {}
        self._names = (f"{AHEAD}group-{number}" for number in itertools.count())

    def take(self, name: str, limits: Limits, devices: Sequence[str]) -> tuple[str, list[Path]]:
        """Return the name and directories of groups with these limits: of ready ones, else new ones.

        New ones have the name that is given, and so have all whose disks have rates: these hold for
        the sandbox's own devices.
        """
        ready = self._ready.get(limits)
        if ready and not limits.disk_rates():
            return ready.pop()
        return name, self._cgroups.make(name, limits, devices)

    async def prepare(self, limits: Limits) -> None:
        """Make groups with these limits, until as many wait as are to; SandboxUnavailableError."""
        ready = self._ready.setdefault(limits, [])
        while len(ready) < self._most and not limits.disk_rates():
            name = next(self._names)
            try:
                ready.append((name, await asyncio.to_thread(self._cgroups.make, name, limits)))
            except BaseException:
                await self._cgroups.remove(name)
                raise

    async def close(self) -> None:
        """Remove those that wait."""
        ready = list(itertools.chain(*self._ready.values()))
        self._ready.clear()
        for name, _ in ready:
            await self._cgroups.remove(name)

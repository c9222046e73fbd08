"""A machine that stands ready: booted, its sandbox launched up to its last steps, and nobody's."""

from collections.abc import Awaitable, Callable
from typing import Final

from handiwork.sandboxes.microvm.running import Running
from handiwork.sandboxes.microvm.states import Staged

AHEAD: Final = "pool"
"""What the states and control groups of such machines begin with; the groups keep it when claimed."""


class Entry:
    """One that waits for a claim; `forget` deletes what it leaves on the host."""

    def __init__(
        self, machine: Running, ahead: Staged, forget: Callable[[Staged], Awaitable[None]]
    ) -> None:
        self.machine = machine
        self.ahead = ahead
        self._forget = forget

    @property
    def stands(self) -> bool:
        """Whether it lives."""
        return not self.machine.process.exited.done()

    async def end(self) -> None:
        """End it, with all it has on the host."""
        await self.machine.stop()
        await self._forget(self.ahead)

"""What live sandboxes tell of themselves to whoever keeps their files elsewhere."""

from typing import Protocol

from handiwork.model.sandbox import SandboxRecord
from handiwork.sandboxes.protocol import Driver


class Keeping(Protocol):
    """Told under the sandbox's lock, so that nothing else changes it meanwhile."""

    async def interrupt(self, sandbox_id: str) -> None:
        """End what is done with its files in the background; returns when it has ended."""
        ...

    def stands(self, record: SandboxRecord, driver: Driver) -> None:
        """It stands still with its processes for a while. Returns at once, as `slept` does."""
        ...

    def slept(self, record: SandboxRecord, driver: Driver, *, stopping: bool) -> None:
        """It sleeps now. Returns at once: what is done with its files is done in the background."""
        ...

    def keeps_closed(self, driver: Driver) -> bool:
        """Say whether `closing` wants the files of one that ran."""
        ...

    async def closing(self, record: SandboxRecord, driver: Driver) -> None:
        """It does not run, and its files are about to be deleted."""
        ...

    async def recoverable(self, record: SandboxRecord) -> str:
        """Say of what its files could be made again; empty: of nothing."""
        ...

    async def recover(self, record: SandboxRecord, driver: Driver) -> str:
        """Make its files again where they are lost, and say so; empty: they are there.

        What it raises keeps the sandbox from waking.
        """
        ...


class NoKeeping:
    """Nobody keeps anything."""

    async def interrupt(self, sandbox_id: str) -> None:
        """Do nothing."""

    def stands(self, record: SandboxRecord, driver: Driver) -> None:
        """Do nothing."""

    def slept(self, record: SandboxRecord, driver: Driver, *, stopping: bool) -> None:
        """Do nothing."""

    def keeps_closed(self, driver: Driver) -> bool:
        """Nobody does."""
        return False

    async def closing(self, record: SandboxRecord, driver: Driver) -> None:
        """Do nothing."""

    async def recoverable(self, record: SandboxRecord) -> str:
        """There is nothing."""
        return ""

    async def recover(self, record: SandboxRecord, driver: Driver) -> str:
        """Leave it to the driver."""
        return ""

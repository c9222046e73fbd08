"""The port of live sandboxes, as the API sees them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from handiwork.model.sandbox import SandboxRecord
from handiwork.model.snapshot import Snapshot, SnapshotDiff, SnapshotState
from handiwork.sandboxes.protocol import Sandbox
from handiwork.sessions.sandbox_request import SandboxRequest


class Snapshots(Protocol):
    """Snapshots of sandboxes by id, as far as the API may ask. NotFoundError, UnsupportedError."""

    async def state(self, sandbox_id: str) -> SnapshotState:
        """Tell what there is, and how the last try went."""
        ...

    async def take(self, sandbox_id: str) -> Snapshot:
        """Take one now."""
        ...

    async def rollback(self, sandbox_id: str, number: int, *, keep_present: bool) -> SandboxRecord:
        """Put one in the place of the sandbox's files."""
        ...

    async def diff(
        self, sandbox_id: str, before: int, after: int, *, prefix: str, limit: int
    ) -> SnapshotDiff:
        """Tell what differs between two."""
        ...

    async def pin(self, sandbox_id: str, number: int, name: str) -> None:
        """Keep one under a name."""
        ...

    async def unpin(self, sandbox_id: str, name: str) -> None:
        """Remove a name."""
        ...

    async def remove(self, sandbox_id: str, number: int) -> None:
        """Forget one that is not pinned."""
        ...

    def export(self, sandbox_id: str, number: int) -> AsyncGenerator[bytes, None]:
        """Yield one as a file. Close it."""
        ...

    async def import_file(self, file: int, size: int, request: SandboxRequest) -> SandboxRecord:
        """Make a sandbox of such a file, whoever wrote it; it sleeps."""
        ...

    async def fork(
        self, sandbox_id: str, count: int, *, number: int | None, policy: str, wake: bool
    ) -> list[SandboxRecord]:
        """Make sandboxes of one; all of them or none."""
        ...


class LiveSandboxes(Protocol):
    """Sandboxes made over the API and those of sessions, as far as the API may touch them."""

    @property
    def to_prepare(self) -> asyncio.Event:
        """Set it to have made ready what is to be, when more can be than before."""
        ...

    async def create(self, request: SandboxRequest) -> SandboxRecord:
        """Make one. ConfigError, NotFoundError, UnsupportedError: nothing was made."""
        ...

    async def use(self, sandbox_id: str) -> Sandbox:
        """Return it running, woken if it sleeps; NotFoundError, or ConflictError when it is gone."""
        ...

    def lend(self, sandbox_id: str) -> AbstractAsyncContextManager[Sandbox]:
        """Yield it running, to look at; one that slept sleeps again after. Errors as of `use`."""
        ...

    async def sleep(self, sandbox_id: str) -> SandboxRecord:
        """End its processes, keep its files."""
        ...

    async def wake(self, sandbox_id: str) -> SandboxRecord:
        """Start it again from its files, under today's policy."""
        ...

    async def close(self, sandbox_id: str) -> SandboxRecord:
        """End it and delete its files."""
        ...

    async def refresh(self, policy_name: str = "") -> None:
        """Give live sandboxes today's policies: those with this layer, or all without a name."""
        ...

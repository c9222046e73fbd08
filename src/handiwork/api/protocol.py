"""The port of live sandboxes, as the API sees them."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from handiwork.model.sandbox import SandboxRecord
from handiwork.sandboxes.protocol import Sandbox
from handiwork.sessions.sandboxes import SandboxRequest


class LiveSandboxes(Protocol):
    """Sandboxes made over the API and those of sessions, as far as the API may touch them."""

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

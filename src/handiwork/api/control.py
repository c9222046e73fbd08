"""What the API needs of the control plane, and nothing more."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from handiwork.config import Settings
from handiwork.egress.protocol import Boundary
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.sandbox import SandboxRecord
from handiwork.sandboxes.protocol import Sandbox
from handiwork.sessions.sandboxes import SandboxRequest
from handiwork.store.protocol import Store


class LiveSandboxes(Protocol):
    """Sandboxes made over the API and those of sessions, as far as the API may touch them."""

    async def create(self, request: SandboxRequest) -> SandboxRecord:
        """Make one. ConfigError, NotFoundError, UnsupportedError: nothing was made."""
        ...

    async def use(self, sandbox_id: str) -> Sandbox:
        """Return it running, woken if it sleeps; NotFoundError, or ConflictError when it is gone."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """Handed to `create_api` by the composition root.

    `readiness` maps each part to why it is not ready (empty: it is). `admin_key_hash` is the
    SHA-256 of the key that TCP callers must show.
    """

    store: Store
    sandboxes: LiveSandboxes
    boundary: Boundary
    stop_session: Callable[[str], Awaitable[None]]
    index_audit: Callable[[], Awaitable[object]]
    readiness: Callable[[], Mapping[str, str]]
    now: Callable[[], datetime]
    admin_key_hash: bytes
    settings: Settings
    tenant: str = DEFAULT_TENANT


Injected = NamedDependency[SkipValidation[Control]]
"""The type of the `control` argument of every route."""

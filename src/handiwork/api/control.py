"""What the API needs of the control plane, and nothing more."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from litestar.di import NamedDependency
from litestar.params import SkipValidation

from handiwork.api.protocol import LiveSandboxes, Snapshots
from handiwork.config import Settings
from handiwork.egress.protocol import Boundary
from handiwork.model.environment import EnvironmentStatus
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.observe.metrics import Metrics
from handiwork.sandboxes.images.store import Images
from handiwork.sessions.hooks import Hooks
from handiwork.sessions.processes import Processes
from handiwork.sessions.runs import Runs
from handiwork.store.protocol import Store


@dataclass(frozen=True, kw_only=True, slots=True)
class Control:
    """Handed to `create_api` by the composition root.

    `readiness` maps each part to why it is not ready (empty: it is). `admin_key_hash` is the
    SHA-256 of the key that TCP callers must show. `wake` makes every dispatcher poll at once.
    `models_changed` tells the local brain what models the store holds.
    `environment_ids` are those whose work is claimed.
    `snapshots` and `hooks` None: they are off.
    `webhook_keys` prove who sent a webhook; without one none is taken.
    """

    store: Store
    images: Images
    sandboxes: LiveSandboxes
    boundary: Boundary
    stop_session: Callable[[str], Awaitable[None]]
    index_audit: Callable[[], Awaitable[object]]
    runs: Runs
    processes: Processes
    readiness: Callable[[], Mapping[str, str]]
    wake: Callable[[], None]
    environments: Callable[[], Awaitable[Sequence[EnvironmentStatus]]]
    environment_ids: tuple[str, ...]
    models_changed: Callable[[], Awaitable[None]]
    now: Callable[[], datetime]
    admin_key_hash: bytes
    settings: Settings
    snapshots: Snapshots | None = None
    hooks: Hooks | None = None
    webhook_keys: tuple[bytes, ...] = ()
    metrics: Metrics = field(default_factory=Metrics)
    tenant: str = DEFAULT_TENANT

    async def refresh(self, policy_name: str = "") -> None:
        """Have a changed policy (or any change, without a name) hold for all that runs."""
        if self.hooks is not None:
            await self.hooks.refresh()
        await self.sandboxes.refresh(policy_name)


Injected = NamedDependency[SkipValidation[Control]]
"""The type of the `control` argument of every route."""

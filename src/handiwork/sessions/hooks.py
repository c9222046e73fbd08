"""Hooks as the control plane sees them: which there are, and what they themselves may reach."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from handiwork.config import Settings
from handiwork.egress.hooks.wire import Catalog, Frames, decode_from_hooks
from handiwork.egress.registry import EgressRegistry
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.errors import HandiworkError, NotFoundError, SandboxUnavailableError
from handiwork.model.hook import HookInfo
from handiwork.model.policy import Scope
from handiwork.observe import log
from handiwork.sessions.policies import NOTHING, Layers, PolicyResolver

WAY_OUT = EgressBinding(id="hooks", kind="hook", ca_id="hooks")
CATALOG_SECONDS = 5.0
READ_BYTES = 65_536


def layers_of(settings: Settings) -> Layers:
    """Return what holds for hooks' own requests: nothing unless `hooks.policy` is set."""
    own = settings.hooks.policy
    everywhere = settings.egress.policy if own else ""
    scoped: tuple[tuple[Scope, str], ...] = (("global", everywhere), ("tool", own))
    return Layers(names=tuple((scope, name) for scope, name in scoped if name))


class Hooks:
    """`way` is the socket of the hooks' process. `layers` are the policies of hooks' own requests."""

    def __init__(
        self, way: Path, policies: PolicyResolver, registry: EgressRegistry, layers: Layers
    ) -> None:
        self._way = way
        self._policies = policies
        self._registry = registry
        self._layers = layers
        self._log = log.get("hooks")

    async def catalog(self) -> tuple[HookInfo, ...]:
        """Return every hook; SandboxUnavailableError when their process does not say."""
        try:
            async with asyncio.timeout(CATALOG_SECONDS):
                return await self._told()
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError):
            raise SandboxUnavailableError(
                "the hooks' process does not answer; see the supervisor's log for why"
            ) from None

    async def _told(self) -> tuple[HookInfo, ...]:
        # By descriptor: a path may be longer than a socket's address holds.
        number = os.open(self._way, os.O_PATH | os.O_CLOEXEC)
        try:
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{number}")
        finally:
            os.close(number)
        frames = Frames()
        try:
            while data := await reader.read(READ_BYTES):
                for payload in frames.take(data):
                    message = decode_from_hooks(payload)
                    if isinstance(message, Catalog):
                        return message.hooks
            raise ConnectionResetError
        finally:
            writer.transport.abort()

    @asynccontextmanager
    async def way_out(self) -> AsyncIterator[int]:
        """Open the hooks' own way out; yields an O_PATH descriptor of its socket."""
        async with self._registry.bind_tool(WAY_OUT, await self._grant()) as number:
            yield number

    async def refresh(self) -> None:
        """Have policies and secrets that changed hold for hooks' own requests."""
        with contextlib.suppress(NotFoundError):  # not open yet: it opens with today's
            await self._registry.update(WAY_OUT.id, await self._grant())

    async def _grant(self) -> EgressGrant:
        """Return what hooks may do; nothing where their policies cannot be resolved."""
        try:
            return await self._policies.grant(self._layers)
        except HandiworkError as error:
            self._log.warning("hooks reach nothing: policy not resolved", reason=str(error))
            return NOTHING

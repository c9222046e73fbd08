"""Brings up the hooks' process: its way out first, then itself."""

from contextlib import AsyncExitStack
from typing import Protocol

from handiwork import process
from handiwork.config import Settings
from handiwork.egress.hooks.process import HooksSettings
from handiwork.egress.registry import EgressRegistry
from handiwork.sessions.hooks import Hooks, layers_of
from handiwork.sessions.policies import PolicyResolver
from handiwork.store.layout import Layout
from handiwork.store.protocol import Store
from handiwork.supervisor import HooksPython, OwnId, Supervisor, kept


class Parts(Protocol):
    """What is there before anything runs."""

    @property
    def settings(self) -> Settings:
        """The whole tree."""
        ...

    @property
    def layout(self) -> Layout:
        """The data directory."""
        ...

    @property
    def store(self) -> Store:
        """Where policies and secrets are."""
        ...


async def started(
    parts: Parts, registry: EgressRegistry, supervisor: Supervisor, stack: AsyncExitStack
) -> Hooks | None:
    """Return the hooks, whose process serves until the stack ends; None where they are off."""
    settings, layout = parts.settings, parts.layout
    listener = registry.hooks
    if listener is None:
        return None
    policies = PolicyResolver(parts.store, settings)
    hooks = Hooks(listener.path, policies, registry, layers_of(settings))
    own = OwnId(settings.process.hooks_id, layout.hooks) if process.is_root() else None
    home = process.HOME if own else str(layout.hooks)
    told = HooksSettings(
        listen_fd=listener.fileno(),
        directory=settings.hooks.directory or home,
        state=f"{home}/{layout.hooks_state.name}",
        exit_fd=await stack.enter_async_context(hooks.way_out()),
        call_seconds=settings.hooks.call_seconds,
        memory_mib=settings.hooks.memory_mib,
    )
    program = HooksPython(told, listener, own, settings.log)
    await stack.enter_async_context(kept(supervisor, [program]))
    return hooks

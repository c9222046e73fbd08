"""What the namespace launcher can be told to run inside its namespaces in place of the agent alone."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from handiwork.model.sandbox import Limits, SandboxSpec


class Inside(Protocol):
    """A kernel of its own around the agent; it makes a tier of the namespaces around it."""

    @property
    def tier(self) -> str:
        """One of `model.sandbox.TIERS`."""
        ...

    async def ready(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Prove once that it works, where `attempt` makes and ends a sandbox; else UnsupportedError."""
        ...

    def launch_options(self, spec: SandboxSpec, state: Path, *, ranged: bool) -> list[str]:
        """Return what the launcher is told besides; may write files into the state's directory.

        `ranged`: the sandbox has 65,536 ids, else one.
        """
        ...

    def around(self, limits: Limits) -> Limits:
        """Return the limits for the control group around sandbox and kernel together."""
        ...

    def protections(self) -> Mapping[str, bool]:
        """Return what holds besides, or no longer, by name."""
        ...

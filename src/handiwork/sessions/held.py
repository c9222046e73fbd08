"""A sandbox as those see it who hold it: running, or only its files."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from handiwork.model.sandbox import SandboxRecord
from handiwork.sandboxes.protocol import Driver, Sandbox
from handiwork.sessions.policies import Layers
from handiwork.tools.state import ToolState


class Held(msgspec.Struct, frozen=True):
    """A sandbox that nobody starts, stops or deletes meanwhile. `sandbox` None: it does not run."""

    record: SandboxRecord
    driver: Driver
    sandbox: Sandbox | None


Change = Callable[[SandboxRecord, Driver], Awaitable[None]]
"""Changes the files of a sandbox that does not run."""


class Live(msgspec.Struct):
    """A running sandbox, what it was started with, and the task that notices its death."""

    sandbox: Sandbox
    driver: Driver
    layers: Layers
    env: Mapping[str, str]
    tools: ToolState = msgspec.field(default_factory=ToolState)
    watch: asyncio.Task[None] | None = None

    @property
    def is_called(self) -> bool:
        """Whether a call of it is under way; shells that wait for their next command are none."""
        return self.sandbox.calls > self.tools.waiting

"""The session engine as the control plane composes it, for tests: real store, brain and sandboxes.

As a script (`python engine.py`, one line of JSON on stdin) it serves until it is killed.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop

from handiwork.brains.anthropic import AnthropicBrain
from handiwork.brains.holding import Records
from handiwork.config import EnvironmentSettings, SandboxSettings, SessionSettings, Settings
from handiwork.egress.protocol import Boundary, EgressSocket
from handiwork.fleet.local import LocalFleet
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sessions.dispatcher import POLLS_PER_MINUTE, Dispatcher
from handiwork.sessions.policies import PolicyResolver
from handiwork.sessions.polling import PollBudget
from handiwork.sessions.reaper import adopt_sessions, reap
from handiwork.sessions.runner import Hands
from handiwork.sessions.sandboxes import LiveSandboxes
from handiwork.store.protocol import Store
from handiwork.store.sqlite import open_sqlite_store
from handiwork.tools.registry import Registry
from handiwork.tools.toolset import stock


def clock() -> datetime:
    return datetime.now(UTC)


class ClosedBoundary:
    """Ways out that exist and let nothing through: connections are not accepted."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._open: dict[str, socket.socket] = {}

    async def open(self, binding: EgressBinding, grant: EgressGrant) -> EgressSocket:
        self._directory.mkdir(parents=True, exist_ok=True)
        path = self._directory / binding.id
        path.unlink(missing_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        path.chmod(0o666)
        self._open[binding.id] = listening
        return EgressSocket(binding=binding, path=str(path), ca_certificate="")

    async def update(self, binding_id: str, grant: EgressGrant) -> None:
        assert binding_id in self._open

    async def close(self, binding_id: str) -> None:
        listening = self._open.pop(binding_id, None)
        if listening is not None:
            listening.close()

    async def seal_key(self, tenant: str) -> bytes:
        return bytes(32)


@dataclass(frozen=True, kw_only=True)
class Engine:
    hands: Hands
    driver: NamespaceDriver
    fleet: LocalFleet
    dispatcher: Dispatcher

    @property
    def store(self) -> Store:
        return self.hands.store

    async def kinds(self, session_id: str) -> list[str]:
        return [event.kind for event in await self.store.sessions.events(session_id)]


@contextlib.asynccontextmanager
async def running(
    data: Path,
    brain: Mapping[str, str],
    *,
    idle_seconds: float = 60,
    lease_seconds: int | None = None,
    policy: str = "",
    boundary: Boundary | None = None,
    registry: Registry | None = None,
    polls_per_minute: int = POLLS_PER_MINUTE,
) -> AsyncIterator[Engine]:
    """Serve the environment that `brain` names (base_url, environment_id, environment_key)."""
    environment = EnvironmentSettings(id=brain["environment_id"], key_file="", policy=policy)
    settings = Settings(
        environments=(environment,),
        sandbox=SandboxSettings(max_sandboxes=128),
        sessions=SessionSettings(idle_seconds=idle_seconds),
    )
    async with contextlib.AsyncExitStack() as stack:
        hands, driver = await _hands(
            data, brain, settings, lease_seconds, boundary, stack, registry
        )
        fleet = await stack.enter_async_context(LocalFleet(max_sessions=64))
        dispatcher = Dispatcher(hands, fleet, polls=PollBudget(polls_per_minute))
        claims = asyncio.ensure_future(dispatcher.run())
        try:
            yield Engine(hands=hands, driver=driver, fleet=fleet, dispatcher=dispatcher)
        finally:
            claims.cancel()
            await asyncio.wait([claims])
            # The brain may hand an item to a poll that is gone; its poll lasts a second.
            await asyncio.sleep(1)


def _short_directory(stack: contextlib.AsyncExitStack) -> Path:
    """A socket's address holds 107 bytes, and the name of a test's own directory may be longer."""
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hw-")))


async def _hands(
    data: Path,
    brain: Mapping[str, str],
    settings: Settings,
    lease_seconds: int | None,
    boundary: Boundary | None,
    stack: contextlib.AsyncExitStack,
    registry: Registry | None,
) -> tuple[Hands, NamespaceDriver]:
    store = await open_sqlite_store(data / "handiwork.db", control_key=b"k" * 32)
    stack.push_async_callback(store.close)
    adapter = AnthropicBrain(
        **brain, lease_seconds=lease_seconds, records=Records(store.leases, clock)
    )
    stack.push_async_callback(adapter.close)
    driver = NamespaceDriver(data, clock=clock)
    drivers = {"namespace": driver}
    policies = PolicyResolver(store, settings)
    sandboxes = await stack.enter_async_context(
        LiveSandboxes(
            drivers=drivers,
            boundary=boundary or ClosedBoundary(_short_directory(stack)),
            store=store,
            policies=policies,
            settings=settings.sandbox,
            clock=clock,
        )
    )
    await adopt_sessions(store, clock)
    await sandboxes.adopt()
    await reap(store, drivers, clock)
    hands = Hands(
        brain=adapter,
        store=store,
        sandboxes=sandboxes,
        policies=policies,
        registry=registry or stock(),
        settings=settings.sessions,
        clock=clock,
    )
    return hands, driver


async def _serve(arguments: dict[str, Any]) -> None:
    async with running(Path(arguments.pop("data")), **arguments):
        print("ready", flush=True)
        await asyncio.get_running_loop().create_future()


if __name__ == "__main__":
    if os.getppid() == 1:
        sys.exit("nobody is there to kill this")
    uvloop.run(_serve(json.loads(sys.stdin.readline())))

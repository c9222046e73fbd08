"""A world for sessions without walls: fake brain, memory store, host programs as sandboxes."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from handiwork.config import EnvironmentSettings, SandboxSettings, SessionSettings, Settings
from handiwork.fleet.local import LocalFleet
from handiwork.model.session import BrainSession, Session
from handiwork.model.tool import TextBlock, ToolCall, ToolResult
from handiwork.observe.metrics import Metrics
from handiwork.sessions.attachments import Sources
from handiwork.sessions.dispatcher import Dispatcher
from handiwork.sessions.keeping import Keeping
from handiwork.sessions.policies import PolicyResolver
from handiwork.sessions.runner import Hands
from handiwork.sessions.sandboxes import LiveSandboxes
from handiwork.testing.brain import FakeBrain
from handiwork.testing.store import MemoryStore
from handiwork.tools.toolset import stock
from host_sandbox import HostDriver
from open_boundary import OpenBoundary

ENVIRONMENT = EnvironmentSettings(id="env_fake", key_file="")


def clock() -> datetime:
    return datetime.now(UTC)


def call(id_: str, command: str = "true", **more: object) -> ToolCall:
    given = {"name": "bash", "input": {"command": command}, **more}
    return msgspec.convert({"id": id_, "session_id": "sesn_1", **given}, ToolCall)


def text(result: ToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextBlock)
    return block.text


class World:
    """Everything a session is served with; `settings` are read when it is entered."""

    def __init__(self, root: Path) -> None:
        self.brain = FakeBrain()
        self.store = MemoryStore()
        self.boundary = OpenBoundary()
        self.driver = HostDriver(root)
        self.settings = Settings(
            sessions=SessionSettings(idle_seconds=30), sandbox=SandboxSettings(max_sandboxes=4)
        )
        self.environment = ENVIRONMENT
        self.sources = Sources()
        self.metrics = Metrics()
        self.keeping: Keeping | None = None

    async def __aenter__(self) -> "World":
        policies = PolicyResolver(
            self.store, self.settings, {self.environment.id: self.environment}
        )
        self.sandboxes = LiveSandboxes(
            drivers={"namespace": self.driver},
            boundary=self.boundary,
            store=self.store,
            policies=policies,
            settings=self.settings.sandbox,
            clock=clock,
            keeping=self.keeping,
        )
        self.hands = Hands(
            brain=self.brain,
            store=self.store,
            sandboxes=self.sandboxes,
            policies=policies,
            registry=stock(),
            settings=self.settings.sessions,
            clock=clock,
            metrics=self.metrics,
            sources=self.sources,
        )
        self.fleet = LocalFleet(max_sessions=8)
        self.dispatcher = Dispatcher(self.hands, self.fleet)
        await self.sandboxes.__aenter__()
        await self.fleet.__aenter__()
        self._claiming = asyncio.ensure_future(self.dispatcher.run())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._claiming.cancel()
        await asyncio.wait([self._claiming])
        await self.fleet.__aexit__(None, None, None)
        await self.sandboxes.__aexit__(None, None, None)

    def agent(self, session_id: str = "sesn_1", **more: object) -> None:
        given = {"agent_id": "agent_1", "agent_name": "a", "toolset": True, **more}
        self.brain.session(msgspec.convert({"id": session_id, **given}, BrainSession))

    async def posted(self, count: int) -> list[ToolResult]:
        await until(lambda: len(self.brain.posts) >= count)
        return self.brain.posts

    async def kinds(self, session_id: str = "sesn_1") -> list[str]:
        return [event.kind for event in await self.store.sessions.events(session_id)]

    async def session_in(self, *states: str, session_id: str = "sesn_1") -> Session:
        async def reached() -> bool:
            found = await self.store.sessions.list(limit=100)
            return any(s.id == session_id and s.state.value in states for s in found)

        await until(reached)
        return await self.store.sessions.get(session_id)


async def until(condition: Callable[[], bool | Awaitable[bool]], seconds: float = 15) -> None:
    """Wait until it holds; an AssertionError when it does not in time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        held = condition()
        if held if isinstance(held, bool) else await held:
            return
        assert asyncio.get_running_loop().time() < deadline, "it did not come to hold in time"
        await asyncio.sleep(0.005)

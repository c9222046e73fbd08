"""The user's side of a session, by the official SDK, and waiting for what it comes to."""

import asyncio
import time
from typing import Any

import anthropic

import engine
from brain_process import TOOLSET, BrainProcess, script
from handiwork.model.session import SessionState

SECONDS = 30


def reach(brain: BrainProcess) -> dict[str, str]:
    return {
        "base_url": brain.base_url,
        "environment_id": brain.environment_id,
        "environment_key": brain.environment_key,
    }


class User:
    """The user's side of one session."""

    def __init__(self, client: anthropic.AsyncAnthropic, session_id: str) -> None:
        self.client = client
        self.id = session_id

    @classmethod
    async def begin(
        cls, client: anthropic.AsyncAnthropic, brain: BrainProcess, *steps: dict[str, Any]
    ) -> "User":
        agent = await client.beta.agents.create(
            name="tester", model="scripted", system=script(*steps), tools=[TOOLSET]
        )
        session = await client.beta.sessions.create(
            agent=agent.id, environment_id=brain.environment_id
        )
        return cls(client, session.id)

    async def say(self, text: str = "go") -> None:
        await self.client.beta.sessions.events.send(
            self.id,
            events=[{"type": "user.message", "content": [{"type": "text", "text": text}]}],
        )

    async def events(self, kind: str) -> list[Any]:
        found = self.client.beta.sessions.events.list(self.id)
        return [event async for event in found if event.type == kind]

    async def results(self, count: int) -> list[tuple[str, bool]]:
        """Wait for so many results; their texts, and whether they are errors."""
        deadline = time.monotonic() + SECONDS
        while True:
            events = await self.events("user.tool_result")
            if len(events) >= count:
                return [(event.content[0].text, bool(event.is_error)) for event in events]
            assert time.monotonic() < deadline, f"{len(events)} of {count} results came"
            await asyncio.sleep(0.02)

    async def turn_over(self, turns: int = 1) -> None:
        deadline = time.monotonic() + SECONDS
        while True:
            idles = await self.events("session.status_idle")
            if sum(idle.stop_reason.type == "end_turn" for idle in idles) >= turns:
                return
            assert time.monotonic() < deadline, "the turn did not end"
            await asyncio.sleep(0.02)


async def state(hands: engine.Engine, session_id: str, *states: SessionState) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        found = [s for s in await hands.store.sessions.list() if s.id == session_id]
        if found and found[0].state in states:
            return
        assert time.monotonic() < deadline, f"the session is {found}"
        await asyncio.sleep(0.02)


async def noted(hands: engine.Engine, session_id: str, kind: str) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        if kind in await hands.kinds(session_id):
            return
        assert time.monotonic() < deadline, f"no {kind} in {await hands.kinds(session_id)}"
        await asyncio.sleep(0.02)

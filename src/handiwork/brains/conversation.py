"""The user's side of a brain: make an agent and a session, say something, follow what happens.

The unmodified official SDK, as any client program would use it; `brains/anthropic.py` is the other
side, the hands. Used by `handiwork run` and `handiwork demo`.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anthropic
import httpx2
import msgspec

from handiwork.model.errors import (
    BrainUnavailableError,
    ConfigError,
    NotFoundError,
    UnauthorizedError,
)

TOOLSET: Final = "agent_toolset_20260401"


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """One event of the session's stream, reduced to what a person reads."""

    kind: str
    id: str
    text: str = ""
    tool: str = ""
    input: Mapping[str, Any] = msgspec.field(default_factory=dict)
    tool_use_id: str = ""
    is_error: bool = False
    stop_reason: str = ""


class Conversation:
    """A client of one brain."""

    def __init__(self, client: anthropic.AsyncAnthropic) -> None:
        self._client = client

    async def make_agent(self, name: str, *, model: str, system: str) -> str:
        """Create an agent with the stock toolset and return its id."""
        with _told():
            agent = await self._client.beta.agents.create(
                name=name,
                model=model,
                system=system,
                tools=[{"type": TOOLSET}],
            )
        return agent.id

    async def make_session(self, agent_id: str, environment_id: str, *, title: str) -> str:
        """Create a session of the agent and return its id."""
        with _told():
            session = await self._client.beta.sessions.create(
                agent=agent_id, environment_id=environment_id, title=title
            )
        return session.id

    @asynccontextmanager
    async def following(self, session_id: str) -> AsyncIterator[AsyncIterator[Happening]]:
        """Open the stream, so that nothing said after it is missed, and yield what happens."""
        with _told():
            stream = await self._client.beta.sessions.events.stream(session_id)
        try:
            yield _happenings(stream)
        finally:
            await stream.close()

    async def say(self, session_id: str, text: str) -> None:
        """Send a user message."""
        with _told():
            await self._client.beta.sessions.events.send(
                session_id,
                events=[{"type": "user.message", "content": [{"type": "text", "text": text}]}],
            )


@asynccontextmanager
async def conversation(*, base_url: str, api_key: str) -> AsyncIterator[Conversation]:
    """Open a client of the brain at the base URL."""
    async with anthropic.AsyncAnthropic(api_key=api_key, base_url=base_url) as client:
        yield Conversation(client)


async def _happenings(stream: Any) -> AsyncIterator[Happening]:
    with _told():
        async for event in stream:
            plain = event.to_dict() if hasattr(event, "to_dict") else dict(event)
            yield _read(plain)


def _read(event: Mapping[str, Any]) -> Happening:
    stop = event.get("stop_reason")
    return Happening(
        kind=str(event.get("type", "")),
        id=str(event.get("id") or ""),
        text=_text(event.get("content")),
        tool=str(event.get("name") or ""),
        input=event.get("input") or {},
        tool_use_id=str(event.get("tool_use_id") or event.get("custom_tool_use_id") or ""),
        is_error=bool(event.get("is_error")),
        stop_reason=str(stop.get("type", "")) if isinstance(stop, Mapping) else "",
    )


def _text(content: Any) -> str:
    if not isinstance(content, list):
        return ""
    return "".join(str(block.get("text", "")) for block in content if isinstance(block, Mapping))


class _told:
    """Turn the SDK's errors into ours."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        match error:
            case anthropic.AuthenticationError() | anthropic.PermissionDeniedError():
                raise UnauthorizedError(f"the brain refused the API key: {error.message}") from None
            case anthropic.NotFoundError():
                raise NotFoundError(f"the brain does not know it: {error.message}") from None
            case anthropic.BadRequestError():
                raise ConfigError(f"the brain refused the request: {error.message}") from None
            case anthropic.APIError():
                raise BrainUnavailableError(
                    f"the brain cannot be reached: {error.message}"
                ) from None
            case httpx2.TransportError():
                raise BrainUnavailableError(f"the brain's stream broke: {error}") from None
            case _:
                return

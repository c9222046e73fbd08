"""The user's side of a brain: make an agent and a session, say something, follow what happens.

The unmodified official SDK, as any client program would use it; `brains/anthropic.py` is the other
side, the hands. Used by `handiwork run` and `handiwork demo`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anthropic
import httpx2
import msgspec

from handiwork.model.errors import (
    BrainUnavailableError,
    ConfigError,
    HandiworkError,
    NotFoundError,
    UnauthorizedError,
)
from handiwork.model.run import Cost, RunEvent, RunUsage

TOOLSET: Final = "agent_toolset_20260401"
MARK: Final = "handiwork-run"
"""The metadata key by which an agent that was made for runs is found again."""
MAX_AGENTS = 2000
MAX_EVENTS = 200_000
_PAUSE_SECONDS = (0.5, 10.0)


class Conversation:
    """A client of one brain."""

    def __init__(self, client: anthropic.AsyncAnthropic) -> None:
        self._client = client

    async def make_agent(self, name: str, *, model: str, system: str, mark: str = "") -> str:
        """Create an agent with the stock toolset and return its id; `mark` is to find it by."""
        with _told():
            agent = await self._client.beta.agents.create(
                name=name,
                model=model,
                system=system,
                tools=[{"type": TOOLSET}],
                metadata={MARK: mark} if mark else {},
            )
        return agent.id

    async def find_agent(self, mark: str) -> str:
        """Return the newest agent of this mark, or an empty text."""
        seen = 0
        with _told():
            async for agent in self._client.beta.agents.list(limit=100):
                seen += 1
                if (agent.metadata or {}).get(MARK) == mark and agent.archived_at is None:
                    return agent.id
                if seen == MAX_AGENTS:
                    break
        return ""

    async def make_session(self, agent_id: str, environment_id: str, *, title: str) -> str:
        """Create a session of the agent and return its id."""
        with _told():
            session = await self._client.beta.sessions.create(
                agent=agent_id, environment_id=environment_id, title=title
            )
        return session.id

    @asynccontextmanager
    async def following(self, session_id: str) -> AsyncIterator[AsyncIterator[RunEvent]]:
        """Open the stream, so that nothing said after it is missed, and yield what happens."""
        with _told():
            stream = await self._client.beta.sessions.events.stream(session_id)
        try:
            yield _events_of(stream)
        finally:
            await stream.close()

    async def history(self, session_id: str) -> AsyncGenerator[RunEvent, None]:
        """Yield what has happened so far, in order."""
        with _told():
            async for event in self._client.beta.sessions.events.list(session_id, order="asc"):
                yield _read(_plain(event))

    async def events(self, session_id: str) -> AsyncGenerator[RunEvent, None]:
        """Yield what has happened, then what happens, each event once; connects again by itself.

        It does not end by itself: bound it by time. NotFoundError, UnauthorizedError: for good.
        """
        seen: set[str] = set()
        pause, longest = _PAUSE_SECONDS
        while True:
            try:
                async with self.following(session_id) as live:
                    for source in (self.history(session_id), live):
                        async for event in source:
                            pause = _PAUSE_SECONDS[0]
                            if event.id not in seen:
                                _bound(seen, session_id)
                                seen.add(event.id)
                                yield event
            except BrainUnavailableError:
                pause = min(pause * 2, longest)
            await asyncio.sleep(pause)

    async def usage(self, session_id: str) -> tuple[RunUsage, Cost | None]:
        """Return what the session used, and what that costs where the brain says it."""
        with _told():
            session = await self._client.beta.sessions.retrieve(session_id)
        usage = _plain(session).get("usage") or {}
        return _usage(usage), _cost(usage.get("list_cost"))

    async def interrupt(self, session_id: str) -> None:
        """End the turn that is under way."""
        with _told():
            await self._client.beta.sessions.events.send(
                session_id, events=[{"type": "user.interrupt"}]
            )

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


async def _events_of(stream: Any) -> AsyncIterator[RunEvent]:
    with _told():
        async for event in stream:
            yield _read(_plain(event))


def _plain(model: Any) -> Mapping[str, Any]:
    found: Mapping[str, Any] = model.to_dict() if hasattr(model, "to_dict") else dict(model)
    return found


def _bound(seen: set[str], session_id: str) -> None:
    if len(seen) >= MAX_EVENTS:
        raise HandiworkError(f"{session_id} has more than {MAX_EVENTS} events: not followed on")


def _usage(usage: Mapping[str, Any]) -> RunUsage:
    creation = usage.get("cache_creation")
    told = creation.values() if isinstance(creation, Mapping) else ()
    written = sum(_count(value) for value in told)
    return RunUsage(
        input_tokens=_count(usage.get("input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
        cache_read_input_tokens=_count(usage.get("cache_read_input_tokens")),
        cache_creation_input_tokens=written or _count(usage.get("cache_creation_input_tokens")),
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _cost(cost: Any) -> Cost | None:
    try:
        return msgspec.convert(cost, Cost) if cost is not None else None
    except msgspec.ValidationError:
        return None


def _read(event: Mapping[str, Any]) -> RunEvent:
    stop = event.get("stop_reason")
    return RunEvent(
        kind=str(event.get("type", "")),
        id=str(event.get("id") or ""),
        text=_text(event.get("content")) or _error(event.get("error")),
        tool=str(event.get("name") or ""),
        input=event.get("input") or {},
        tool_use_id=str(event.get("tool_use_id") or event.get("custom_tool_use_id") or ""),
        is_error=bool(event.get("is_error")),
        stop_reason=str(stop.get("type", "")) if isinstance(stop, Mapping) else "",
    )


def _error(error: Any) -> str:
    return str(error.get("message") or "") if isinstance(error, Mapping) else ""


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

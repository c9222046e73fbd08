"""Sessions as their operator sees them."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec

from handiwork.client.link import Link, lines, part
from handiwork.model.errors import HandiworkError
from handiwork.model.session import Session, SessionEvent
from handiwork.model.wire import Listing

FOLLOW_SECONDS = 60.0
"""A followed session is told of at least this often, if only that nothing happened."""
STOP_SECONDS = 120.0
PAGE = 1000


class Sessions:
    """`hw.sessions`: look at sessions, follow them, stop them."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self, *, state: str | None = None, limit: int = 100) -> list[Session]:
        """List them, newest first."""
        query = {"state": state, "limit": limit}
        return list((await self._link.get("/api/sessions", Listing[Session], query)).data)

    async def get(self, session_id: str) -> Session:
        """Find one; NotFoundError."""
        return await self._link.get(f"/api/sessions/{part(session_id)}", Session)

    async def events(
        self, session_id: str, *, after: int = 0, follow: bool = False
    ) -> AsyncGenerator[SessionEvent, None]:
        """Yield what happened after the given sequence; with `follow`, then what happens.

        Following ends when the control plane stops; begin again after the last sequence. Close
        it when you leave early (`contextlib.aclosing`).
        """
        path = f"/api/sessions/{part(session_id)}/events"
        if follow:
            async with aclosing(self._follow(path, after)) as live:
                async for event in live:
                    yield event
            return
        while True:
            query = {"after": after, "limit": PAGE}
            page = (await self._link.get(path, Listing[SessionEvent], query)).data
            for event in page:
                yield event
            if len(page) < PAGE:
                return
            after = page[-1].sequence

    async def stop(self, session_id: str) -> Session:
        """Stop one: its processes end."""
        path = f"/api/sessions/{part(session_id)}/stop"
        return await self._link.send("POST", path, Session, seconds=STOP_SECONDS)

    async def _follow(self, path: str, after: int) -> AsyncGenerator[SessionEvent, None]:
        async with self._link.stream(
            "GET", f"{path}/stream", query={"after": after}, seconds=FOLLOW_SECONDS
        ) as chunks:
            async for line in lines(chunks):
                if line.startswith(b"data: "):
                    yield _event(line.removeprefix(b"data: "))


def _event(data: bytes) -> SessionEvent:
    try:
        return msgspec.json.decode(data, type=SessionEvent)
    except msgspec.DecodeError as error:
        raise HandiworkError(f"the event is not what this client expects: {error}") from None

"""Sessions as their operator sees them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import msgspec

from handiwork.client.link import Link, lines, part
from handiwork.client.transfer import MAX_BYTES, Transfer, write_below
from handiwork.model.errors import HandiworkError
from handiwork.model.session import Session, SessionEvent
from handiwork.model.wire import Listing, OutputFile

FOLLOW_SECONDS = 60.0
"""A followed session is told of at least this often, if only that nothing happened."""
STOP_SECONDS = 120.0
OUTPUT_SECONDS = 120.0
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

    async def outputs(self, session_id: str) -> tuple[OutputFile, ...]:
        """List what the agent left in `/workspace/outputs`. A sleeping sandbox is woken for it."""
        path = f"/api/sessions/{part(session_id)}/outputs"
        return (await self._link.get(path, Listing[OutputFile])).data

    async def output(self, session_id: str, path: str) -> bytes:
        """Read one of them; NotFoundError."""
        parts = "/".join(map(part, path.split("/")))
        return await self._link.raw(
            "GET", f"/api/sessions/{part(session_id)}/outputs/{parts}", seconds=OUTPUT_SECONDS
        )

    async def download_outputs(self, session_id: str, target: Path) -> Transfer:
        """Copy all of them beneath a directory, which is made where it is missing.

        What they are named is the agent's choice: a path that is not one of plain names is left out.
        HandiworkError when they are more than a download may be; what came before stays.
        """
        target.mkdir(parents=True, exist_ok=True)
        files, size = 0, 0
        skipped: tuple[str, ...] = ()
        for one in await self.outputs(session_id):
            data = await self.output(session_id, one.path)
            if size + len(data) > MAX_BYTES:
                raise HandiworkError(f"{session_id} left more than {MAX_BYTES} bytes to download")
            if await asyncio.to_thread(write_below, target, one.path, data):
                files, size = files + 1, size + len(data)
            else:
                skipped = (*skipped, one.path)
        return Transfer(files=files, bytes=size, skipped=skipped)

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

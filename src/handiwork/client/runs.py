"""One call: a task in, the events and the answer out."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

import msgspec

from handiwork.client.link import Link, lines, part
from handiwork.model.errors import HandiworkError
from handiwork.model.run import Run, RunEvent
from handiwork.model.wire import MAX_RUN_SECONDS, Listing, RunBody

SILENCE_SECONDS = 60.0
"""A stream says something at least this often, if only that nothing happened."""
MARGIN_SECONDS = 60.0
EVENT_STREAM = "text/event-stream"

T = TypeVar("T")


class Runs:
    """`hw.runs`: give a task, follow it, have its answer."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def start(self, body: RunBody) -> Run:
        """Give a task and wait for its end; the run is still running after `body.wait_seconds`."""
        seconds = body.wait_seconds + MARGIN_SECONDS
        return await self._link.send("POST", "/api/runs", Run, body, seconds=seconds)

    async def stream(self, body: RunBody) -> AsyncGenerator[Run | RunEvent, None]:
        """Give a task and yield its record, its events as they come, its record as it ended.

        Leaving early does not end the run. Close it (`contextlib.aclosing`).
        """
        source = self._told("POST", "/api/runs", content=msgspec.json.encode(body))
        async with aclosing(source) as told:
            async for each in told:
                yield each

    async def follow(self, run_id: str) -> AsyncGenerator[Run | RunEvent, None]:
        """Yield what `stream` yields, of a run that was started before."""
        source = self._told("GET", f"/api/runs/{part(run_id)}/events/stream")
        async with aclosing(source) as told:
            async for each in told:
                yield each

    async def list(self, *, limit: int = 100) -> list[Run]:
        """List them, newest first."""
        return list((await self._link.get("/api/runs", Listing[Run], {"limit": limit})).data)

    async def get(self, run_id: str, *, wait_seconds: float = 0.0) -> Run:
        """Find one; with `wait_seconds`, when it has ended or after so many. NotFoundError."""
        wait = min(wait_seconds, MAX_RUN_SECONDS)
        answer = await self._link.raw(
            "GET",
            f"/api/runs/{part(run_id)}",
            query={"wait_seconds": str(wait)},
            seconds=wait + MARGIN_SECONDS,
        )
        return _decoded(answer, Run)

    async def cancel(self, run_id: str) -> Run:
        """Interrupt one; ConflictError when it has ended."""
        return await self._link.send("POST", f"/api/runs/{part(run_id)}/cancel", Run)

    async def _told(
        self, method: str, path: str, content: bytes | None = None
    ) -> AsyncGenerator[Run | RunEvent, None]:
        kind: type[Run | RunEvent] = RunEvent
        async with self._link.stream(
            method, path, content=content, accept=EVENT_STREAM, seconds=SILENCE_SECONDS
        ) as chunks:
            async for line in lines(chunks):
                if line.startswith(b"event: "):
                    kind = Run if line == b"event: run" else RunEvent
                elif line.startswith(b"data: "):
                    yield _decoded(line.removeprefix(b"data: "), kind)


def _decoded(data: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.DecodeError as error:
        raise HandiworkError(f"the answer is not what this client expects: {error}") from None

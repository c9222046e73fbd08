"""A webhook receiver on loopback, as an operator's own server would be.

async with receiving(500, 200) as receiver:      # the first delivery is refused, later ones taken
    ...
    await receiver.heard(2)
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

WAIT_SECONDS = 30


@dataclass
class Received:
    """One request: headers in lower case, and the raw body."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """What came, and how the next ones are answered; the last status goes on."""

    statuses: list[int]
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    hold: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def heard(self, count: int) -> list[Received]:
        """Wait until so many requests came."""
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.requests) < count:
                self._news.clear()
                await self._news.wait()
        return self.requests

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one request and answer it."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            lines = [line.partition(": ") for line in head[1:] if line]
            headers = {name.lower(): value for name, _, value in lines}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append(Received(headers, body))
            self._news.set()
            status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
            await self.hold.wait()
            location = "location: http://127.0.0.1:1/\r\n" if 300 <= status < 400 else ""
            answer = (
                f"HTTP/1.1 {status} X\r\n{location}content-length: 0\r\nconnection: close\r\n\r\n"
            )
            writer.write(answer.encode())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncIterator[Receiver]:
    """Listen on a free port and answer with these statuses."""
    receiver = Receiver(list(statuses) or [200])
    receiver.hold.set()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.hold.set()
        server.close()
        await server.wait_closed()

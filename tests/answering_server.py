"""A loopback HTTP server that answers as a test tells it, and remembers what it was asked."""

import asyncio
import contextlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Self

Answer = tuple[int, Any] | bytes
"""A status with its JSON, or the bytes of a whole answer after which the connection closes."""


@dataclass
class Request:
    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Any

    @property
    def key(self) -> str:
        return self.headers["authorization"].removeprefix("Bearer ")


@dataclass
class Server:
    """Answers from lists by the last word of the path; the last answer stays."""

    answers: dict[str, list[Answer]] = field(default_factory=dict)
    seen: defaultdict[str, list[Request]] = field(default_factory=lambda: defaultdict(list))
    url: str = ""
    judge: Callable[[Request], Answer | None] = lambda _: None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        listening = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        yield self
        listening.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = await self._request(reader)
                name = request.path.rpartition("/")[2]
                self.seen[name].append(request)
                answer = self.judge(request)
                if answer is None:
                    told = self.answers[name if request.method == "GET" else f"{name}!"]
                    answer = told[0] if len(told) == 1 else told.pop(0)
                if isinstance(answer, bytes):
                    writer.write(answer)
                    return
                status, body = answer
                data = json.dumps(body).encode()
                writer.write(
                    b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                    % (status, len(data))
                    + data
                )
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> Request:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
        method, target, _ = first.split(" ")
        path, _, query = target.partition("?")
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        return Request(method, path, query, headers, json.loads(raw) if raw else None)


def error(status: int) -> Answer:
    return status, {"type": "error", "error": {"type": "x", "message": "as told"}}

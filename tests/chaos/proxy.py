"""The chaos brain: a proxy that hands requests to a real brain and lets things go wrong by a plan.

Plain HTTP/1.1 over asyncio streams: what a client of ours would notice is done to its own socket.
"""

import asyncio
import contextlib
import json
import re
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from chaos.plan import ANSWERED, Fault, Plan

MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024 * 1024
QUIET_SECONDS = 0.3
LOOK_SECONDS = 0.05

_ROUTES = [
    ("poll", "GET", re.compile(r"/v1/environments/[^/]{1,99}/work/poll")),
    ("ack", "POST", re.compile(r"/v1/environments/[^/]{1,99}/work/([^/]+)/ack")),
    ("beat", "POST", re.compile(r"/v1/environments/[^/]{1,99}/work/([^/]+)/heartbeat")),
    ("stop", "POST", re.compile(r"/v1/environments/[^/]{1,99}/work/([^/]+)/stop")),
    ("open", "GET", re.compile(r"/v1/sessions/([^/]+)/events/stream")),
    ("history", "GET", re.compile(r"/v1/sessions/([^/]+)/events")),
    ("post", "POST", re.compile(r"/v1/sessions/([^/]+)/events")),
    ("describe", "GET", re.compile(r"/v1/sessions/([^/]+)")),
]

_ERROR = b'{"type":"error","error":{"type":"api_error","message":"chaos"},"request_id":"req_chaos"}'
_LOST_LEASE = (
    b'{"type":"error","error":{"type":"invalid_request_error","message":"chaos","details":'
    b'{"error_code":"heartbeat_precondition_failed","current_state":{"last_heartbeat":null,'
    b'"lease_extended":false,"state":"active","ttl_seconds":3}}}}'
)


@dataclass
class Message:
    """A request or an answer: its first line, its headers as they came, its body."""

    first: str
    headers: list[tuple[str, str]]
    body: bytes = b""

    def header(self, name: str) -> str:
        return next((value for key, value in self.headers if key.lower() == name), "")

    @property
    def status(self) -> int:
        return int(self.first.split(" ", 2)[1])

    def head(self, *, length: int | None) -> bytes:
        """Return the head with the length of a body, or of a body in chunks."""
        kept = [
            pair
            for pair in self.headers
            if pair[0].lower() not in ("content-length", "transfer-encoding", "connection")
        ]
        framing = ("transfer-encoding", "chunked") if length is None else ("content-length", length)
        lines = [self.first, *(f"{key}: {value}" for key, value in (*kept, framing))]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


def _takes_a_first_beat(target: str, fault: Fault | None) -> bool:
    """Say whether a first heartbeat would be lost: then another owner would serve, and none is here.

    Its item would only come back after a lease that nobody has asked to be short: 300 seconds.
    """
    return fault is not None and fault.status == 412 and "NO_HEARTBEAT" in target


class Gone(Exception):
    """The client's connection is over."""


@dataclass
class Chaos:
    """The proxy. `kill` ends the engine and returns when it is dead; `names` are the sessions'."""

    plan: Plan
    upstream: int
    kill: Callable[[], Awaitable[None]]
    names: dict[str, str] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    port: int = 0

    def __post_init__(self) -> None:
        self._numbers: Counter[tuple[str, str]] = Counter()
        self._works: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextlib.asynccontextmanager
    async def serving(self):
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, limit=MAX_HEAD)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._tasks.add(task)
        link = Link(self, reader, writer)
        try:
            await link.serve()
        except (Gone, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            link.close()

    def asked(self, request: Message) -> tuple[str, str, Fault | None]:
        """Return the request's route, its subject, and what happens to it."""
        method, target, _ = request.first.split(" ")
        path = target.partition("?")[0]
        for route, verb, pattern in _ROUTES:
            found = pattern.fullmatch(path)
            if found and verb == method:
                subject = self._subject(found[1]) if found.groups() else "queue"
                number = self._numbers[route, subject]
                self._numbers[route, subject] += 1
                fault = self.plan.request(route, subject, number)
                return route, subject, None if _takes_a_first_beat(target, fault) else fault
        return "other", "", None

    def learn(self, answer: bytes) -> None:
        """Take from a poll's answer which session a work item is for."""
        item = json.loads(answer or b"null")
        if item:
            self._works[item["id"]] = item["data"]["id"]

    def opened(self, subject: str) -> int:
        """Return the number of a session's stream."""
        self._numbers["stream", subject] += 1
        return self._numbers["stream", subject] - 1

    def did(self, fault: Fault) -> None:
        self.done[fault.kind] += 1

    def _subject(self, id_: str) -> str:
        return self.names.get(self._works.get(id_, id_), "unknown")


class Link:
    """One connection of a client, and ours to the brain for it."""

    def __init__(
        self, chaos: Chaos, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._chaos = chaos
        self._reader = reader
        self._writer = writer
        self._brain: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._ended = False

    async def serve(self) -> None:
        """Serve requests until somebody ends it."""
        while True:
            request = await _read(self._reader, has_body=True)
            route, subject, fault = self._chaos.asked(request)
            if fault is not None:
                self._chaos.did(fault)
                await self._before(fault)
            if route == "open":
                await self._stream(request, subject, fault)
            else:
                await self._answer(request, route, fault)

    def close(self) -> None:
        self._writer.close()
        if self._brain is not None:
            self._brain[1].close()

    async def _before(self, fault: Fault) -> None:
        match fault.kind:
            case "die_before":
                await self._chaos.kill()
                raise Gone
            case "reset":
                self._reset()
            case "half_close":
                await self._half_close()

    async def _answer(self, request: Message, route: str, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "status":
            await self._refuse(fault.status)
            return
        asking = asyncio.ensure_future(self._ask(request))
        leaving = asyncio.ensure_future(self._left(asking))
        try:
            answer = await asking
        except asyncio.CancelledError:
            raise Gone from None
        finally:
            asking.cancel()
            leaving.cancel()
        if route == "poll" and answer.status == 200:
            self._chaos.learn(answer.body)
        await self._send(answer, fault)

    async def _left(self, asking: asyncio.Future[Message]) -> None:
        """Let go of the brain when the client is gone, as its own socket would."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self._reader.at_eof():
                asking.cancel()
                return

    async def _ask(self, request: Message) -> Message:
        reader, writer = await self._connected()
        writer.write(request.head(length=len(request.body)) + request.body)
        await writer.drain()
        return await _read(reader, has_body=True)

    async def _send(self, answer: Message, fault: Fault | None) -> None:
        kind = fault.kind if fault is not None and fault.kind in (*ANSWERED, "die_after") else ""
        body = answer.body
        match kind:
            case "die_after":
                await self._chaos.kill()
                raise Gone
            case "lost":
                self._reset()
            case "cut":
                self._writer.write(answer.head(length=len(body) + 1) + body[: len(body) // 2])
                await self._writer.drain()
                raise Gone
            case "malformed":
                body = body[: len(body) // 2] or b"{"
            case "slow":
                await asyncio.sleep(fault.seconds)
        self._writer.write(answer.head(length=len(body)) + body)
        await self._writer.drain()

    async def _refuse(self, status: int) -> None:
        body = _LOST_LEASE if status == 412 else _ERROR
        head = Message(f"HTTP/1.1 {status} Chaos", [("content-type", "application/json")])
        self._writer.write(head.head(length=len(body)) + body)
        await self._writer.drain()

    async def _stream(self, request: Message, subject: str, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "status":
            await self._refuse(fault.status)
            return
        reader, writer = await self._connected()
        writer.write(request.head(length=0))
        answer = await _read(reader, has_body=False)
        if answer.status != 200:
            raise Gone
        self._writer.write(answer.head(length=None))
        events = Events(self._chaos, subject, self)
        leaving = asyncio.ensure_future(self._left(asyncio.current_task()))
        try:
            async for chunk in _chunks(reader):
                await events.take(chunk)
            self._writer.write(b"0\r\n\r\n")
        finally:
            leaving.cancel()
            events.close()
        raise Gone

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._brain is None:
            self._brain = await asyncio.open_connection("127.0.0.1", self._chaos.upstream)
        return self._brain

    def write_chunk(self, data: bytes) -> None:
        if self._ended or self._writer.is_closing():
            raise Gone
        self._writer.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)
        self._writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, linger
        )
        self._writer.transport.abort()
        raise Gone

    async def _half_close(self) -> None:
        """End our direction and go on reading, as a proxy that is being drained does."""
        self._ended = True
        self._writer.write_eof()
        await asyncio.sleep(QUIET_SECONDS)
        raise Gone

    async def end_stream(self, kind: str, event: bytes) -> None:
        """End it in the middle of an event."""
        half = event[: len(event) // 2]
        match kind:
            case "drop":
                self.write_chunk(half)
                await self._writer.drain()
                self._reset()
            case "cut":
                self.write_chunk(half)
                self._writer.write(b"0\r\n\r\n")
                await self._writer.drain()
                raise Gone
            case "half_close":
                self.write_chunk(half)
                await self._half_close()
            case "die":
                await self._chaos.kill()
                raise Gone


class Events:
    """The events of one stream on their way."""

    def __init__(self, chaos: Chaos, subject: str, link: Link) -> None:
        self._chaos = chaos
        self._subject = subject
        self._link = link
        self._stream = chaos.opened(subject)
        self._number = 0
        self._rest = b""
        self._held: tuple[bytes, asyncio.TimerHandle] | None = None

    async def take(self, chunk: bytes) -> None:
        *events, self._rest = (self._rest + chunk).split(b"\n\n")
        for event in events:
            await self._event(event + b"\n\n")

    def close(self) -> None:
        if self._held is not None:
            self._held[1].cancel()

    async def _event(self, event: bytes) -> None:
        if event.startswith(b"event: ping"):
            self._link.write_chunk(event)
            return
        fault = self._chaos.plan.event(self._subject, self._stream, self._number)
        self._number += 1
        if fault is None:
            self._link.write_chunk(event)
            self._let_go()
            return
        self._chaos.did(fault)
        match fault.kind:
            case "duplicate":
                self._link.write_chunk(event + event)
            case "reorder":
                self._let_go()
                timer = asyncio.get_running_loop().call_later(fault.seconds, self._let_go)
                self._held = event, timer
                return
            case "delay":
                await asyncio.sleep(fault.seconds)
                self._link.write_chunk(event)
            case _:
                await self._link.end_stream(fault.kind, event)
        self._let_go()

    def _let_go(self) -> None:
        """Send the event that was kept back, after the one that overtook it or alone."""
        if self._held is not None:
            event, timer = self._held
            self._held = None
            timer.cancel()
            with contextlib.suppress(Gone):
                self._link.write_chunk(event)


async def _read(reader: asyncio.StreamReader, *, has_body: bool) -> Message:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    headers = [(key.strip(), value.strip()) for key, _, value in (x.partition(":") for x in lines)]
    message = Message(first, headers)
    if not has_body:
        return message
    if message.header("transfer-encoding").lower() == "chunked":
        message.body = b"".join([chunk async for chunk in _chunks(reader)])
    else:
        length = int(message.header("content-length") or 0)
        assert length <= MAX_BODY
        message.body = await reader.readexactly(length)
    return message


async def _chunks(reader: asyncio.StreamReader):
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        data = await reader.readexactly(size + 2)
        yield data[:-2]
    await reader.readuntil(b"\r\n")

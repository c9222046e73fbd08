"""Connections to upstreams: parsing their answers, and keeping idle ones for a while."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from handiwork.egress.proxy.dial import Destination

if TYPE_CHECKING:
    from handiwork.egress.proxy.heads import Shown

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 200
READ_BYTES = 262_144  # what the event loop hands over at once, mostly
MAX_INFORMATIONAL = 64
MAX_PER_DESTINATION = 64
WRITE_BUFFER_BYTES = 65_536  # in place of the 512 KiB that uvloop holds for TLS


class Answered(Protocol):
    """What an upstream connection tells the exchange that it carries."""

    head_only: bool

    def informed(self, status: int) -> None:
        """Hear of a 1xx answer that precedes the final one."""

    def answered(self, status: int, reason: bytes, headers: list[tuple[bytes, bytes]]) -> bool:
        """Take the final head; say whether to go on reading."""

    def received(self, data: bytes) -> None:
        """Take a piece of the body."""

    def flush(self) -> None:
        """Pass on what was taken; called once for each read."""

    def trailed(self, trailers: list[tuple[bytes, bytes]]) -> None:
        """Take the fields that followed the body, before its end."""

    def ended(self, *, reusable: bool) -> None:
        """Pass on the rest: the answer is whole; the connection has let go of the exchange."""

    def upgraded(self, data: bytes) -> None:
        """Take raw bytes after a switch of protocols."""

    def lost(self, reason: str) -> None:
        """Hear that the connection is gone before the answer was whole."""

    def upstream_writable(self, *, writable: bool) -> None:
        """Hear that the connection's buffer filled up or drained."""


class Upstream(asyncio.Protocol):
    """One connection to one destination; carries one exchange at a time."""

    __slots__ = (
        "address",
        "age",
        "closed",
        "complete",
        "destination",
        "exchange",
        "head_bytes",
        "headers",
        "idle_since",
        "in_head",
        "informational",
        "informed",
        "parser",
        "persistent",
        "reason",
        "shown",
        "trailers",
        "transport",
        "unsized",
        "upgraded",
        "writable",
    )

    transport: asyncio.Transport

    def __init__(self, destination: Destination) -> None:
        self.destination = destination
        self.address = ""
        self.exchange: Answered | None = None
        self.closed = False
        self.writable = True
        self.upgraded = False
        self.age = 0
        self.informed = 0
        self.shown: Shown | None = None
        self.idle_since = 0.0
        self._renew()

    def _renew(self) -> None:
        self.parser = HttpResponseParser(self)
        self._reset()

    def _reset(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []
        self.trailers: list[tuple[bytes, bytes]] = []
        self.head_bytes = 0
        self.in_head = True
        self.complete = False
        self.informational = False
        self.unsized = False
        self.persistent = False
        self.reason = b""

    def take(self, exchange: Answered) -> None:
        """Carry an exchange; `age` counts how many before it."""
        self.exchange = exchange
        self.informed = 0

    def abort(self) -> None:
        """Drop the connection now and tell nobody."""
        self.exchange = None
        self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Parse what came for the exchange."""
        exchange = self.exchange
        if exchange is None:  # nobody asked: whatever it is, it must not answer the next request
            self.transport.abort()
            return
        if self.upgraded:
            exchange.upgraded(data)
            return
        self.head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as switched:
            self._switched(exchange, data[switched.args[0] :])
            return
        except HttpParserError:
            self._broken("the answer is not valid HTTP")
            return
        if self.head_bytes > MAX_HEAD_BYTES + READ_BYTES:  # of a head, or of trailers
            self._broken("the head of the answer is too large")
        elif self.exchange is not exchange:
            return
        elif self.complete:
            self._finish(exchange)
        else:
            exchange.flush()

    def eof_received(self) -> None:
        """Let the transport close, which ends the answer; see `connection_lost`."""

    def connection_lost(self, error: Exception | None) -> None:
        """End the exchange: an answer without a length ends here, others are cut."""
        self.closed = True
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        if self.unsized and error is None and not self.upgraded:
            exchange.ended(reusable=False)
        else:
            exchange.lost("the connection ended before the answer was whole")

    def pause_writing(self) -> None:
        """Tell the exchange that the buffer is full."""
        self.writable = False
        if self.exchange is not None:
            self.exchange.upstream_writable(writable=False)

    def resume_writing(self) -> None:
        """Tell the exchange that there is room again."""
        self.writable = True
        if self.exchange is not None:
            self.exchange.upstream_writable(writable=True)

    def on_message_begin(self) -> None:
        """End what follows a whole answer: nobody asked for it."""
        if not self.complete:
            return
        exchange = self.exchange  # more than one answer: never keep this connection
        self.exchange = None
        if exchange is not None:
            exchange.ended(reusable=False)
        self.transport.abort()

    def on_status(self, reason: bytes) -> None:
        """Take a piece of the reason."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or of the trailers; one too many of either is noted."""
        fields = self.headers if self.in_head else self.trailers
        if len(fields) <= MAX_HEADERS:
            fields.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the head to the exchange."""
        exchange = self.exchange
        if exchange is None:
            return
        status = self.parser.get_status_code()
        if status < 200 and status != 101:
            self.informational = True
            self.informed += 1
            if self.informed > MAX_INFORMATIONAL:
                self._broken("answers that precede the answer have no end")
            else:
                exchange.informed(status)
            return
        self.in_head = False
        self.persistent = self.parser.should_keep_alive()
        if len(self.headers) > MAX_HEADERS or (
            self.head_bytes > MAX_HEAD_BYTES and self._head_size() > MAX_HEAD_BYTES
        ):
            self._broken("the head of the answer is too large")
            return
        if status == 101 and not self.parser.should_upgrade():
            self._broken("a switch of protocols that names none")
            return
        if not exchange.answered(status, self.reason, self.headers):
            self.exchange = None
            self.transport.abort()
        elif exchange.head_only:
            self.complete = True

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body to the exchange."""
        self.head_bytes = 0
        if self.exchange is None:
            return
        if self.complete:  # a body where none can be
            self.on_message_begin()
        else:
            self.exchange.received(data)

    def on_message_complete(self) -> None:
        """Note that the answer is whole."""
        if self.informational:
            self._reset()
        else:
            self.complete = True

    def _head_size(self) -> int:
        return sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _finish(self, exchange: Answered) -> None:
        reusable = self.persistent and not self.closed
        if self.trailers:
            exchange.trailed(self.trailers)
        if exchange.head_only:
            self._renew()
        else:
            self._reset()
        self.age += 1
        self.exchange = None
        exchange.ended(reusable=reusable)

    def _switched(self, exchange: Answered, rest: bytes) -> None:
        if self.exchange is not exchange:
            return
        self.upgraded = True
        exchange.flush()
        if rest:
            exchange.upgraded(rest)

    def _broken(self, reason: str) -> None:
        exchange, self.exchange = self.exchange, None
        self.transport.abort()
        if exchange is not None:
            exchange.lost(reason)


class Pool:
    """Idle connections of one binding, newest first; bounded in number and in age."""

    def __init__(self, *, max_idle: int, idle_seconds: float) -> None:
        self._max_idle = max_idle
        self._idle_seconds = idle_seconds
        self._idle: dict[Destination, deque[Upstream]] = {}
        self._count = 0

    def take(self, destination: Destination, now: float) -> Upstream | None:
        """Return a live idle connection, or None."""
        waiting = self._idle.get(destination)
        while waiting:
            upstream = waiting.pop()
            self._count -= 1
            if upstream.closed or upstream.transport.is_closing():
                continue
            if now - upstream.idle_since < self._idle_seconds:
                return upstream
            upstream.abort()
        return None

    def give(self, upstream: Upstream, now: float) -> None:
        """Keep a connection that is idle now; close it where too many are."""
        waiting = self._idle.setdefault(upstream.destination, deque())
        if self._count >= self._max_idle or len(waiting) >= MAX_PER_DESTINATION:
            upstream.abort()
            return
        upstream.idle_since = now
        waiting.append(upstream)
        self._count += 1

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long."""
        for destination, waiting in list(self._idle.items()):
            while waiting and (
                waiting[0].closed or now - waiting[0].idle_since >= self._idle_seconds
            ):
                self._count -= 1
                waiting.popleft().abort()
            if not waiting:
                del self._idle[destination]

    def close(self) -> None:
        """Close all."""
        for waiting in self._idle.values():
            for upstream in waiting:
                upstream.abort()
        self._idle.clear()
        self._count = 0

"""One connection of a guest, once it is known to carry HTTP: parses requests, in order, bounded."""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Literal, cast

import msgspec
from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from handiwork.egress.proxy import answers
from handiwork.egress.proxy.exchange import Exchange
from handiwork.egress.proxy.heads import FRAMING, Facts, Place, Refusal, place_of
from handiwork.egress.proxy.upstream import WRITE_BUFFER_BYTES
from handiwork.model.policy import Scheme

if TYPE_CHECKING:
    from handiwork.egress.proxy.binding import LiveBinding

MISDIRECTED = "misdirected"
MAX_TARGET_BYTES = 8192
MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 100
MAX_PIPELINED = 32
LINGER_SECONDS = 1.0
MAX_LINGER_BYTES = 4 << 20
_UNSENT, _PIPELINED, _SWITCHING = 1, 2, 4


class Origin(msgspec.Struct, frozen=True):
    """How the connection came: TLS to a name, clear to a captured port, or absolute form (E3).

    `host` is the SNI, canonical; `port` the one the guest dialled.
    """

    kind: Literal["tls", "clear", "absolute"]
    host: str = ""
    port: int = 0

    @property
    def scheme(self) -> Scheme:
        """The scheme of captured requests."""
        return "https" if self.kind == "tls" else "http"


class Flow(asyncio.Protocol):
    """Owns its exchanges: one at work, few waiting; the rest stays in the guest's socket."""

    transport: asyncio.Transport

    def __init__(self, binding: "LiveBinding", origin: Origin, first: bytes = b"") -> None:
        self.binding = binding
        self.origin = origin
        self.loop = binding.loop
        self.write_paused = False
        self.touched = 0.0
        self._connected = False
        self._dropped = False
        self.facts: Facts | None = None
        self._first = first
        self._parser = HttpRequestParser(self)
        self._in_head = True
        self._head_bytes = 0
        self._body_came = False
        self._head_since = 0.0
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._trailers: list[tuple[bytes, bytes]] = []
        self._parsing: Exchange | None = None
        self._current: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._holds = 0
        self._lingered = -1
        self._ended = False
        self._seen: tuple[bytes, Place] | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER_BYTES)
        self.touched = self.loop.time()
        self._connected = True
        if self._dropped:
            self.transport.abort()
        elif self._first:
            self.data_received(self._first)

    def data_received(self, data: bytes) -> None:
        """Take bytes of the guest: requests, a tunnel, or what is left after an end."""
        self.touched = self.loop.time()
        current = self._current
        if current is not None and current.tunnelling:
            current.tunnel(data)
        elif self._lingered >= 0:
            self._discard(len(data))
        else:
            self._parse(data)
            if self._parsing is not None:
                self._parsing.push()

    def eof_received(self) -> bool:
        """Stay open for the answer that is under way; in TLS the transport closes all the same."""
        self._ended = True
        return self._current is not None and self.origin.kind != "tls"

    def connection_lost(self, error: Exception | None) -> None:
        """Give up what was under way."""
        self._lingered = 0
        current, self._current = self._current, None
        if current is not None:
            current.abandon()
        self._forget_waiting()
        self.binding.gone(self)

    def pause_writing(self) -> None:
        """Stop the upstream: the guest does not read."""
        self.write_paused = True
        current = self._current
        if current is not None and current.upstream is not None:
            current.upstream.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the upstream go on."""
        self.write_paused = False
        current = self._current
        if current is not None:
            current.guest_reads()
        else:
            self._next()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._target = b""
        self._headers = []
        self._in_head = True
        self._head_since = self.touched

    def on_url(self, part: bytes) -> None:
        """Take a piece of the target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a field of the head, or of the trailers; one too many of either is noted."""
        fields = self._headers if self._in_head else self._trailers
        if len(fields) <= MAX_HEADERS:
            fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Make an exchange of the head, and begin it when it is its turn."""
        parser = self._parser
        self._in_head = False
        self._head_bytes = 0
        self._head_since = 0.0
        if self._lingered >= 0:
            self._parsing = None
            return
        exchange = Exchange(
            self,
            parser.get_method(),
            self._target,
            self._headers,
            version=parser.get_http_version(),
            keep_alive=parser.should_keep_alive(),
            upgrade=parser.should_upgrade(),
        )
        self._parsing = exchange
        self.binding.requests += 1
        if self._current is None and not self._waiting and not self.write_paused:
            self._current = exchange
            exchange.begin()
        else:
            self._waiting.append(exchange)
            self._hold(_PIPELINED, on=True)

    def on_body(self, data: bytes) -> None:
        """Hand a piece of the body to its exchange."""
        self._body_came = True
        if self._parsing is not None:
            self._parsing.body(data)

    def on_message_complete(self) -> None:
        """Tell the exchange that its request is whole."""
        if self._parsing is not None:
            self._parsing.completed(self._trailers)
            self._parsing.push()
        self._trailers = []
        self._in_head = True
        self._head_bytes = 0

    # What exchanges call.

    def place(self, target: bytes, host: bytes) -> Place:
        """Return where a request goes, after all that says so was found to agree."""
        origin = self.origin
        if target[:1] == b"/" and origin.kind != "absolute":
            seen = self._seen
            if seen is not None and seen[0] == host:
                return seen[1]
            place = place_of(origin.scheme, host)
            self._agree(place)
            self._seen = (host, place)
            return place
        place = self._absolute(target)
        if place_of(place.scheme, host) != place:
            raise Refusal(400, FRAMING, "the target and the Host field name different places")
        if origin.kind != "absolute":
            self._agree(place)
        return place

    def write(self, data: bytes) -> None:
        """Write to the guest; counts as activity."""
        self.touched = self.loop.time()
        self.transport.write(data)

    def hold_reading(self, *, unsent: bool) -> None:
        """Stop or go on reading from the guest, for want of room towards the upstream."""
        self._hold(_UNSENT, on=unsent)

    def tunnel_opened(self) -> None:
        """Let the guest's raw bytes come."""
        self._hold(_SWITCHING, on=False)

    def finished(self, exchange: Exchange, *, close: bool) -> None:
        """Go on after an exchange, or close."""
        self.binding.requests -= 1
        if self._current is not exchange:
            return
        self._current = None
        self._hold(_UNSENT | _SWITCHING, on=False)
        if close or (self._ended and not self._waiting):
            self._close(whole=exchange.whole)
        elif self._waiting:
            self.loop.call_soon(self._next)
        else:
            self._hold(_PIPELINED, on=False)

    def abort(self) -> None:
        """Drop the connection now, or as soon as the event loop has handed it over."""
        self._dropped = True
        if self._connected:
            self.transport.abort()

    # What the binding calls.

    def overdue(self, now: float) -> None:
        """Close or fail what has been silent for longer than its state permits."""
        settings, current = self.binding.settings, self._current
        if not self._connected:
            return
        if self._head_since and now - self._head_since > settings.head_seconds:
            self._refuse(408, FRAMING, "the head of the request did not come in time")
        elif now - self.touched <= settings.idle_seconds:
            return
        elif current is not None and not current.tunnelling:
            current.refuse(504, "upstream", "nothing came for too long")
        else:
            self.abort()

    def reconsider(self) -> None:
        """Drop a tunnel that the grant in force does not permit."""
        current = self._current
        if current is not None and current.tunnelling and not current.judge_again():
            current.cut("the policy changed")

    def _parse(self, data: bytes) -> None:
        while data and self._lingered < 0:
            piece, data = self._piece(data)
            from_head, self._body_came = self._in_head, False
            try:
                self._parser.feed_data(piece)
            except HttpParserUpgrade as switch:
                data = piece[switch.args[0] :] + data
                if self._switched(data):
                    return
            except HttpParserError as error:
                self._broken(error)
                return
            if not self._in_bounds(len(piece), from_head=from_head):
                return

    def _piece(self, data: bytes) -> tuple[bytes, bytes]:
        room = MAX_HEAD_BYTES - self._head_bytes
        if not self._in_head or len(data) <= room:
            return data, b""
        return data[:room], data[room:]

    def _in_bounds(self, fed: int, *, from_head: bool) -> bool:
        if not self._in_head:
            # Since the last piece of body: chunk extensions, and trailers, which the parser
            # keeps until they end.
            self._head_bytes = 0 if from_head or self._body_came else self._head_bytes + fed
            if self._head_bytes <= MAX_HEAD_BYTES:
                return True
            self._refuse(431, FRAMING, "the trailers of the request are too large")
            return False
        self._head_bytes += fed if from_head and self._head_since else 0
        if self._head_bytes >= MAX_HEAD_BYTES or len(self._headers) > MAX_HEADERS:
            self._refuse(431, FRAMING, "the head of the request is too large")
        elif len(self._target) > MAX_TARGET_BYTES:
            self._refuse(431, FRAMING, "the target of the request is too long")
        elif len(self._waiting) > MAX_PIPELINED:
            self._refuse(400, FRAMING, "too many requests at once")
        else:
            return True
        return False

    def _switched(self, rest: bytes) -> bool:
        """Handle the end of parsing at an upgrade; say whether the rest is not HTTP."""
        exchange = self._parsing
        self._parser = HttpRequestParser(self)
        self._in_head = True
        if exchange is None or exchange.method == b"CONNECT":
            return True
        if not exchange.upgrade or exchange.done:
            return False
        if exchange is not self._current:  # it waits its turn: it may be sent, but not switch
            exchange.upgrade = False
            return False
        if rest:
            exchange.refuse(400, FRAMING, "bytes came before the switch of protocols")
        else:
            self._hold(_SWITCHING, on=True)
        return True

    def _broken(self, error: HttpParserError) -> None:
        cause = error.__context__
        if cause is not None and not isinstance(cause, HttpParserError):
            self.binding.fault("request", cause)
        reason = "the request could not be read" if cause else f"not valid HTTP: {error}"
        self._refuse(400, FRAMING, reason)

    def _refuse(self, status: int, rule: str, reason: str) -> None:
        """End the connection over what cannot be parsed, answering if nothing else is under way."""
        self._head_since = 0.0
        current = self._current
        if current is not None:
            current.keep_alive = False
            current.refuse(status, rule, reason)
            return
        if self._lingered >= 0:
            return
        self.write(answers.refusal(status, rule, reason, close=True))
        self.binding.record(
            kind="http",
            allowed=False,
            rules=(rule,),
            reason=reason,
            scheme=self.origin.scheme,
            host=self.origin.host,
            port=self.origin.port,
            status=status,
        )
        self._close(whole=False)

    def _agree(self, place: Place) -> None:
        origin = self.origin
        if origin.kind == "tls" and place.host != origin.host:
            reason = f"Host names {place.host}, the TLS name is {origin.host}"
            raise Refusal(421, MISDIRECTED, reason)
        if place.scheme != origin.scheme or place.port != origin.port:
            reason = f"Host names port {place.port}, the connection went to {origin.port}"
            raise Refusal(421, MISDIRECTED, reason)

    def _absolute(self, target: bytes) -> Place:
        scheme, separator, rest = target.partition(b"://")
        name = scheme.lower()
        if not separator or name not in (b"https", b"http"):
            raise Refusal(400, FRAMING, "the target is neither a path nor an http(s) URL")
        authority = rest.partition(b"/")[0].partition(b"?")[0]
        return place_of("https" if name == b"https" else "http", authority)

    def _next(self) -> None:
        if self._current is None and self._waiting and not self.write_paused:
            self._current = exchange = self._waiting.popleft()
            if not self._waiting:
                self._hold(_PIPELINED, on=False)
            exchange.begin()
            exchange.push()

    def _hold(self, why: int, *, on: bool) -> None:
        holds = self._holds | why if on else self._holds & ~why
        if holds == self._holds:
            return
        before, self._holds = self._holds, holds
        if holds and not before:
            self.transport.pause_reading()
        elif before and not holds and not self.transport.is_closing():
            self.transport.resume_reading()

    def _close(self, *, whole: bool) -> None:
        """Close; where the guest still sends, let it read the answer first."""
        self._forget_waiting()
        if whole:
            self._lingered = 0
            self.transport.close()
        elif self._lingered < 0:
            self._lingered = 0
            self._hold(_UNSENT | _PIPELINED | _SWITCHING, on=False)
            self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _forget_waiting(self) -> None:
        self.binding.requests -= len(self._waiting)
        self._waiting.clear()

    def _discard(self, count: int) -> None:
        self._lingered += count
        if self._lingered > MAX_LINGER_BYTES:
            self.transport.abort()

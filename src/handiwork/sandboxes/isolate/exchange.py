"""One request to the egress proxy, and its answer, whose body is read as it is asked for.

The connection is the session's egress socket and nothing else; the proxy decides, adds what the guest
never sees, and makes TLS. What it answers may be an upstream's, and is an attacker's.
"""

import asyncio
import contextlib
import zlib
from collections import deque
from typing import Self

import httptools

from handiwork.model.errors import ToolFailedError
from handiwork.sandboxes.isolate.fetch_rules import (
    HEADER_BYTES,
    HEADERS,
    Asked,
    Header,
    head,
)

READ_BYTES = 1 << 16
PIECE_BYTES = 1 << 18
CONNECT_SECONDS = 10.0


class Exchange:
    """Open until its body was read to its end, or `close`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._answer = _Answer()
        self._parser = httptools.HttpResponseParser(self._answer)
        self._answer.parser = self._parser
        self._inflate: zlib._Decompress | None = None
        self._unpacking = False
        self._closed = False
        self._head_bytes = 0

    @classmethod
    async def begin(cls, socket_path: str, asked: Asked) -> Self:
        """Send it, and return when the head of its answer is there; ToolFailedError."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                streams = await asyncio.open_unix_connection(socket_path, limit=READ_BYTES)
        except (OSError, TimeoutError):
            raise ToolFailedError("fetch: the way out of this sandbox does not answer") from None
        exchange = cls(*streams)
        try:
            await exchange._send(asked)
        except BaseException:
            exchange.close()
            raise
        return exchange

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self._answer.status

    @property
    def reason(self) -> str:
        """The words after the status."""
        return self._answer.reason

    @property
    def headers(self) -> list[Header]:
        """Headers of the answer, names in lower case; those of a body that is unpacked here are left out."""
        dropped = {"content-encoding", "content-length"} if self._inflate else set()
        return [one for one in self._answer.headers if one[0] not in dropped]

    def values(self, name: str) -> list[str]:
        """Return what a header says, once for each time that it is there."""
        return [value for known, value in self._answer.headers if known == name]

    async def read(self) -> bytes | None:
        """Return the next piece of the body; None at its end. ToolFailedError when it broke off."""
        while True:
            if self._answer.body:
                data = self._unpacked(self._answer.body.popleft())
                if data:
                    return data
            elif self._answer.complete:
                self.close()
                if self._unpacking and self._inflate is not None and not self._inflate.eof:
                    raise ToolFailedError("fetch: the answer broke off")
                return None
            else:
                await self._receive()

    def close(self) -> None:
        """Let go of the connection. No-op when it is."""
        if not self._closed:
            self._closed = True
            self._writer.transport.abort()

    async def _send(self, asked: Asked) -> None:
        self._answer.bodiless = asked.method == "HEAD"
        try:
            self._writer.write(head(asked))
            for at in range(0, len(asked.body), PIECE_BYTES):
                self._writer.write(asked.body[at : at + PIECE_BYTES])
                await self._writer.drain()
        except OSError:
            pass  # it may have answered before it read all
        while not self._answer.told:
            await self._receive()
        packed = [value.lower().strip() for value in self.values("content-encoding")]
        if packed in (["gzip"], ["x-gzip"]) and not _names(asked, "accept-encoding"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)

    async def _receive(self) -> None:
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._answer.end_of_stream(self._parser)
            return
        if not self._answer.told:  # the parser keeps a header until it is whole
            self._head_bytes += len(data)
            if self._head_bytes > HEADER_BYTES + READ_BYTES:
                raise ToolFailedError("fetch: the head of the answer is too large")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise ToolFailedError("fetch: the answer is another protocol") from None
        except httptools.HttpParserError as error:
            if self._answer.complete:
                return  # what follows an answer is nobody's
            why = error.__context__ if isinstance(error.__context__, _TooMuchError) else error
            raise ToolFailedError(f"fetch: the answer is no HTTP: {why}") from None

    def _unpacked(self, data: bytes) -> bytes:
        """Return it unpacked, at most PIECE_BYTES; what is left comes first the next time."""
        if self._inflate is None:
            return data
        if self._inflate.eof:
            return b""  # what follows a packed body is none of it
        self._unpacking = True
        try:
            out = self._inflate.decompress(data, PIECE_BYTES)
        except zlib.error as error:
            raise ToolFailedError(f"fetch: the answer cannot be unpacked: {error}") from None
        if self._inflate.unconsumed_tail:
            self._answer.body.appendleft(self._inflate.unconsumed_tail)
        return out


def _names(asked: Asked, header: str) -> bool:
    return any(name == header for name, _ in asked.headers)


class _OverError(Exception):
    """Another answer follows the one that was asked for."""


class _TooMuchError(Exception):
    """The head of an answer is larger than any needs to be."""


class _Answer:
    """What the parser found: `told` when the head of the answer is there, and `complete` with its end.

    Those on the way to it (1xx) are passed over. What comes behind it, or after a head that has no body, is left out.
    """

    parser: httptools.HttpResponseParser

    def __init__(self) -> None:
        self.status = 0
        self.reason = ""
        self.headers: list[Header] = []
        self.bodiless = False
        self.told = False
        self.complete = False
        self.body: deque[bytes] = deque()
        self._bytes = 0

    def on_message_begin(self) -> None:
        if self.told:
            raise _OverError
        self.reason = ""
        self.headers.clear()

    def on_status(self, text: bytes) -> None:
        self._count(text)
        self.reason = (self.reason + text.decode("latin-1")).replace("\0", "")[:200]

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name + value)
        if self.told:
            return  # it comes behind the body: nobody waits for it
        self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        self.told = self.status >= 200
        self.complete = self.told and self.bodiless

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.body.append(data)

    def on_message_complete(self) -> None:
        self.complete = self.told

    def end_of_stream(self, parser: httptools.HttpResponseParser) -> None:
        """Take the end of the connection: for some answers it is the end of the body."""
        if not self.told:
            raise ToolFailedError("fetch: the connection ended before there was an answer")
        lengths = {name for name, _ in self.headers} & {
            "content-length",
            "transfer-encoding",
        }
        if lengths:
            raise ToolFailedError("fetch: the answer broke off")
        with contextlib.suppress(httptools.HttpParserError):
            parser.feed_data(b"")
        self.complete = True

    def _count(self, data: bytes) -> None:
        self._bytes += len(data)
        if self._bytes > HEADER_BYTES or len(self.headers) > HEADERS:
            raise _TooMuchError("its head is too large")

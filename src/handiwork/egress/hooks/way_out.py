"""The hooks' own requests: through an egress socket of their own, whole answers, bounded."""

import asyncio
from urllib.parse import urlsplit

import httptools

from handiwork.hooks import Headers, Pairs, Response

MAX_ANSWER_BYTES = 8 << 20
MAX_HEAD_BYTES = 65_536
READ_BYTES = 65_536
_OURS = frozenset({"connection", "content-length", "host", "transfer-encoding"})


class WayOut:
    """Requests by the socket at `path`; without one there is no way out."""

    def __init__(self, path: str) -> None:
        self._path = path

    async def send(
        self, method: str, url: str, *, headers: Pairs = (), body: bytes = b""
    ) -> Response:
        """Send one request and return its whole answer; OSError where none came."""
        if not self._path:
            raise OSError("hooks have no way out here")
        reader, writer = await asyncio.open_unix_connection(self._path, limit=READ_BYTES)
        try:
            writer.write(head(method, url, headers, body) + body)
            await writer.drain()
            return await _answer(reader, bodiless=method == "HEAD")
        finally:
            writer.transport.abort()

    async def get(self, url: str, *, headers: Pairs = ()) -> Response:
        """Send a GET."""
        return await self.send("GET", url, headers=headers)

    async def post(self, url: str, *, headers: Pairs = (), body: bytes = b"") -> Response:
        """Send a POST."""
        return await self.send("POST", url, headers=headers, body=body)


def head(method: str, url: str, headers: Pairs, body: bytes) -> bytes:
    """Return the head in absolute form; ValueError where a part of it would be another line."""
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.netloc:
        raise ValueError("a hook's URL begins with https:// or http:// and a host")
    lines = [f"{method} {url.partition('#')[0]} HTTP/1.1", f"host: {parts.netloc}"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() not in _OURS]
    lines += [f"content-length: {len(body)}"] if body or method in ("POST", "PUT", "PATCH") else []
    if any(char < " " and char != "\t" for line in lines for char in line) or " " in url:
        raise ValueError("a line of the request holds a control character or the URL a space")
    return "\r\n".join([*lines, "connection: close", "", ""]).encode("latin-1")


class _Parsed:
    def __init__(self) -> None:
        self.pairs: list[tuple[str, str]] = []
        self.body = bytearray()
        self.in_head = True
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.pairs.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_headers_complete(self) -> None:
        self.in_head = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


async def _answer(reader: asyncio.StreamReader, *, bodiless: bool) -> Response:
    parsed = _Parsed()
    parser = httptools.HttpResponseParser(parsed)
    head_bytes = 0
    while not parsed.complete and not (bodiless and not parsed.in_head):
        data = await reader.read(READ_BYTES)
        if not data:
            raise ConnectionError("the way out closed before the answer was whole")
        head_bytes += len(data) if parsed.in_head else 0
        try:
            parser.feed_data(data)
        except httptools.HttpParserError:
            raise ConnectionError("the answer is not valid HTTP") from None
        if len(parsed.body) > MAX_ANSWER_BYTES or (parsed.in_head and head_bytes > MAX_HEAD_BYTES):
            raise ConnectionError("the answer is too large")
    return Response(
        status=parser.get_status_code(), headers=Headers(parsed.pairs), body=bytes(parsed.body)
    )

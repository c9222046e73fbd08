"""One connection pool to one control plane: requests, streams, limits, errors of the tree."""

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
import msgspec
from websockets.asyncio.client import ClientConnection, connect, unix_connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from handiwork.model.errors import ConfigError, HandiworkError, SandboxUnavailableError
from handiwork.model.wire import MAX_FILE_BYTES, MAX_MESSAGE_BYTES, ErrorEnvelope, error_of

DEFAULT_URL = "http://127.0.0.1:8787"
FAREWELL_SECONDS = 2.0
"""So long is waited for the other side to end a WebSocket that is left."""
ANSWER_SECONDS = 60.0
CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = MAX_FILE_BYTES
MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
MAX_ADDRESS_BYTES = 107
"""Of a unix socket's path: unix(7), sun_path."""
CONNECTIONS = 256
REFUSED_WAITS = (0.1, 0.3, 1.0)
"""Seconds before each further try of a GET whose connection was refused."""

T = TypeVar("T")
Query = Mapping[str, str | int | bool | None]


class Link:
    """Speaks to the control plane over TCP with the admin key, or over its unix socket."""

    def __init__(
        self, *, base_url: str | None, api_key: str | None, socket: str | Path | None
    ) -> None:
        if socket is not None and (base_url or api_key):
            raise ConfigError("give either socket, or base_url and api_key")
        self.place = str(socket or base_url or DEFAULT_URL)
        self._directory = _directory_of(socket) if socket and _is_long(socket) else None
        if self._directory is not None:
            socket = f"/proc/self/fd/{self._directory}/{Path(self.place).name}"
        limits = httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=32)
        self._socket = str(socket) if socket else None
        self._key = _headers(api_key)
        self._http = httpx2.AsyncClient(
            base_url="http://localhost" if socket else self.place,
            transport=httpx2.AsyncHTTPTransport(
                uds=str(socket) if socket else None, limits=limits, trust_env=False
            ),
            headers=_headers(api_key),
            trust_env=False,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.aclose()
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

    async def get(
        self,
        path: str,
        kind: type[T],
        query: Query | None = None,
        *,
        seconds: float = ANSWER_SECONDS,
    ) -> T:
        """Return what a GET gives."""
        return _decoded(await self.raw("GET", path, query=query, seconds=seconds), kind)

    async def send(
        self,
        method: str,
        path: str,
        kind: type[T],
        body: msgspec.Struct | None = None,
        *,
        seconds: float = ANSWER_SECONDS,
    ) -> T:
        """Return what a request with a JSON body gives."""
        content = None if body is None else msgspec.json.encode(body)
        return _decoded(await self.raw(method, path, content=content, seconds=seconds), kind)

    async def raw(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        content: bytes | None = None,
        media_type: str = "application/json",
        also: int = 200,
        seconds: float = ANSWER_SECONDS,
    ) -> bytes:
        """Return the body of an answer; an error of the tree when it is one.

        `also` is a status that is no success and whose body is an answer all the same.
        """
        async with self.stream(
            method,
            path,
            query=query,
            content=content,
            media_type=media_type,
            also=also,
            seconds=seconds,
        ) as chunks:
            return await _whole(chunks, MAX_ANSWER_BYTES)

    @asynccontextmanager
    async def stream(  # noqa: PLR0913  what HTTP has, each with a default
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        content: bytes | AsyncIterable[bytes] | None = None,
        media_type: str = "application/json",
        accept: str = "",
        also: int = 200,
        seconds: float = ANSWER_SECONDS,
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """Yield the body of an answer as it comes; `seconds` may pass between two pieces."""
        headers = {"content-type": media_type} if content is not None else {}
        if accept:
            headers["accept"] = accept
        request = self._http.build_request(
            method,
            path,
            params={
                name: _text(value) for name, value in (query or {}).items() if value is not None
            },
            content=content,
            headers=headers,
            timeout=httpx2.Timeout(seconds, connect=CONNECT_SECONDS),
        )
        try:
            response = await self._sent(request)
            try:
                if not response.is_success and response.status_code != also:
                    raise await _error(response)
                yield response.aiter_raw()
            finally:
                await response.aclose()
        except httpx2.TimeoutException:
            raise HandiworkError(
                f"the control plane at {self.place} did not answer {method} {path} in time"
            ) from None
        except httpx2.TransportError as error:
            raise HandiworkError(
                f"the control plane at {self.place} cannot be reached ({_reason(error)});"
                " is `handiwork up` running?"
            ) from None

    @asynccontextmanager
    async def websocket(self, path: str) -> AsyncIterator[ClientConnection]:
        """Open a WebSocket; what is not read stops the other side at a few messages."""
        place = "http://localhost" if self._socket else self.place
        options: Any = {
            "additional_headers": {n: v for n, v in self._key.items() if n == "authorization"},
            "compression": None,
            "max_size": MAX_MESSAGE_BYTES,
            "max_queue": 4,
            "open_timeout": ANSWER_SECONDS,
            "close_timeout": FAREWELL_SECONDS,
        }
        url = f"ws{place.removeprefix('http')}{path}"
        try:
            opening = (
                unix_connect(self._socket, url, **options)
                if self._socket
                else connect(url, proxy=None, **options)
            )
            async with opening as opened:
                yield opened
        except InvalidStatus as refused:
            raise _refused(refused) from None
        except (OSError, TimeoutError, InvalidHandshake) as error:
            raise HandiworkError(
                f"the control plane at {self.place} cannot be reached ({_reason(error)});"
                " is `handiwork up` running?"
            ) from None
        except ConnectionClosed:
            raise SandboxUnavailableError("the connection to the sandbox was cut off") from None

    async def _sent(self, request: httpx2.Request) -> httpx2.Response:
        """Send; a GET that was refused a connection is sent again, nothing else is."""
        for wait in REFUSED_WAITS if request.method == "GET" else ():
            try:
                return await self._http.send(request, stream=True)
            except httpx2.ConnectError as error:
                if not _was_refused(error):
                    raise
                await asyncio.sleep(wait)
        return await self._http.send(request, stream=True)


def part(text: str) -> str:
    """Return the text as one part of a path."""
    if text in ("", ".", ".."):
        raise ConfigError(f"{text!r} is no name")
    return quote(text, safe="")


async def lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Yield the lines of a stream, without their ends; a line has a limit."""
    rest = bytearray()
    async for chunk in chunks:
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield bytes(rest + line)
            rest.clear()
        rest += last
        if len(rest) > MAX_LINE_BYTES:
            raise HandiworkError(f"a line of the answer is longer than {MAX_LINE_BYTES} bytes")
    if rest:
        yield bytes(rest)


def _is_long(socket: str | Path) -> bool:
    return len(os.fsencode(socket)) > MAX_ADDRESS_BYTES


def _directory_of(socket: str | Path) -> int:
    """Return a descriptor by way of which a socket of any path can be named."""
    try:
        return os.open(Path(socket).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ConfigError(f"{socket}: {error.strerror}") from None


def _headers(api_key: str | None) -> dict[str, str]:
    headers = {"accept-encoding": "identity"}
    if api_key is not None:
        if not api_key.isascii() or not api_key.isprintable():
            raise ConfigError("the API key is not printable ASCII")
        headers["authorization"] = " ".join(("Bearer", api_key))
    return headers


def _text(value: str | int | bool | None) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


async def _whole(chunks: AsyncIterator[bytes], limit: int) -> bytes:
    kept = bytearray()
    async for chunk in chunks:
        kept += chunk
        if len(kept) > limit:
            raise HandiworkError(f"the answer is longer than {limit} bytes")
    return bytes(kept)


def _refused(refused: InvalidStatus) -> HandiworkError:
    try:
        return error_of(msgspec.json.decode(refused.response.body or b"", type=ErrorEnvelope).error)
    except msgspec.DecodeError:
        status = refused.response.status_code
        return HandiworkError(f"status {status} from what is not a control plane")


async def _error(response: httpx2.Response) -> HandiworkError:
    try:
        body = await _whole(response.aiter_raw(), MAX_ERROR_BYTES)
        return error_of(msgspec.json.decode(body, type=ErrorEnvelope).error)
    except msgspec.DecodeError:
        return HandiworkError(f"status {response.status_code} from what is not a control plane")


def _decoded(body: bytes, kind: type[T]) -> T:
    if kind is type(None):
        return None
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise HandiworkError(f"the answer is not what this client expects: {error}") from None


def _was_refused(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None


def _reason(error: Exception) -> Any:
    return str(error) or type(error).__name__

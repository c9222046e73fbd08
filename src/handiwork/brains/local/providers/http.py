"""The HTTP client under the SDKs, with limits, and what a provider's failure means.

Only the address that the operator wrote is asked: redirects are not followed and no proxy of the
environment is used.
"""

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from handiwork.brains.local.models import Kind, ModelFailedError

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 120.0
"""A provider that is silent for so long is given up; those that think send something meanwhile."""
REQUEST_SECONDS = 1800.0
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_EVENT_LINES = 64
"""Of an event in a stream: the SDKs copy what they have of it at every line."""
MAX_ERROR_CHARS = 300

_KEYS = re.compile(r"\b(?:sk|pk|api|key)[-_][A-Za-z0-9*_.-]{4,}")
_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|(prompt|input|request).{0,20}too (long|large|many)"
    r"|maximum context|too many tokens|exceeds? the (available )?context",
    re.IGNORECASE,
)
_RETRIED = frozenset({408, 409, 425, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})


class TooLargeError(Exception):
    """An answer is longer than any answer should be."""


class _Counted(httpx2.AsyncByteStream):
    """A body that ends with an error where it grows too long."""

    def __init__(self, inner: Any, most: int) -> None:
        self._inner = inner
        self._left = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            self._left -= len(piece)
            if self._left < 0:
                raise TooLargeError
            yield piece

    async def aclose(self) -> None:
        await self._inner.aclose()


class _Events(httpx2.AsyncByteStream):
    """A stream of events that is handed on in whole events, however small its pieces come.

    The SDKs copy an event's beginning for each line and each piece of it, so that one of many
    would hold up the whole process.
    """

    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        held, lines, last = bytearray(), 0, b""
        async for piece in self._inner:
            given = last + piece
            # A CR at the end may be half of a CRLF.
            last = b"\r" if given.endswith(b"\r") else b""
            given = given.removesuffix(last).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            before = max(0, len(held) - 1)
            held += given
            end = held.rfind(b"\n\n", before) + 2
            if end > 1:
                whole = bytes(held[:end])
                if any(event.count(b"\n") > MAX_EVENT_LINES for event in whole.split(b"\n\n")):
                    raise TooLargeError
                yield whole
                del held[:end]
                lines = held.count(b"\n")
            else:
                lines += given.count(b"\n")
            if lines > MAX_EVENT_LINES:
                raise TooLargeError
        yield bytes(held) + last

    async def aclose(self) -> None:
        await self._inner.aclose()


class Transport(httpx2.AsyncHTTPTransport):
    """The SDK's transport, with a limit on each answer, compressed or not."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request that asks for an answer without compression, whose limit then holds."""
        request.headers["accept-encoding"] = "identity"
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise TooLargeError
        counted = _Counted(response.stream, MAX_ANSWER_BYTES)
        whole = not response.is_success or "json" in response.headers.get("content-type", "")
        response.stream = counted if whole else _Events(counted)
        return response


def client(idle_seconds: float = IDLE_SECONDS) -> httpx2.AsyncClient:
    """Return the client for one provider."""
    return httpx2.AsyncClient(
        transport=Transport(limits=httpx2.Limits(max_connections=64)),
        timeout=httpx2.Timeout(idle_seconds, connect=CONNECT_SECONDS),
        follow_redirects=False,
        trust_env=False,
    )


@asynccontextmanager
async def failures(where: str) -> AsyncIterator[None]:
    """Turn what breaks within into ModelFailedError, after too long a time also what does not."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            yield
    except TooLargeError:
        raise _too_large(where) from None
    except TimeoutError:
        raise broken(where, f"no whole answer within {REQUEST_SECONDS:.0f} s") from None
    except (ValueError, RecursionError):
        raise broken(where, "an event is not valid JSON") from None
    except (httpx2.TransportError, httpx2.StreamError) as error:
        raise broken(where, f"the connection broke ({type(error).__name__})") from None


def unreached(where: str, error: Exception) -> ModelFailedError:
    """Return what it means that an SDK got no answer: its cause says more than its text."""
    cause = error.__cause__
    if isinstance(cause, TooLargeError):
        return _too_large(where)
    if isinstance(cause, httpx2.TimeoutException):
        return broken(where, "it was silent for too long")
    return broken(where, f"the connection failed ({type(cause or error).__name__})")


def _too_large(where: str) -> ModelFailedError:
    text = (
        f"{where}: the answer is longer than {MAX_ANSWER_BYTES} bytes, has an event of more than"
        f" {MAX_EVENT_LINES} lines, or is compressed unasked"
    )
    return ModelFailedError(text, kind="request_failed")


def broken(where: str, what: str) -> ModelFailedError:
    """Return the failure of an answer that is cut or malformed; the next may be whole."""
    return ModelFailedError(f"{where}: {what}", kind="request_failed", retry=True)


def refused(
    where: str, status: int, body: object, headers: Mapping[str, str], key: str
) -> ModelFailedError:
    """Return what a provider's refusal means."""
    kind_told, said = _said(body)
    if status in (401, 403):
        text = f"{where} refused the key ({status}); see that the model's key is right"
        return ModelFailedError(text, kind="request_failed")
    kind, retry = _meaning(status, kind_told, said)
    text = masked(
        f"{where} answered {status}: {said}" if said else f"{where} answered {status}", key
    )
    return ModelFailedError(text, kind=kind, retry=retry, retry_after=_retry_after(headers))


def masked(text: str, key: str) -> str:
    """Return a provider's text cut, on one line, without anything that looks like a key."""
    text = text.replace(key, "…") if key else text
    line = " ".join(_KEYS.sub("…", text).split())
    return "".join(sign for sign in line if sign.isprintable())[:MAX_ERROR_CHARS]


def _meaning(status: int, told: str, said: str) -> tuple[Kind, bool]:
    if status == 529 or "overloaded" in told:
        return "overloaded", True
    if status == 402 or "insufficient_quota" in told or "billing" in told:
        return "billing", False
    if status == 429 or "rate_limit" in told:
        return "rate_limited", True
    if status == 503:
        return "overloaded", True
    if status in (400, 413, 422) and (_TOO_LONG.search(said) or "context_length" in told):
        return "context", False
    return "request_failed", status in _RETRIED or told in ("api_error", "timeout_error")


def _said(body: object) -> tuple[str, str]:
    """Return the provider's words for the kind of its error, and its message."""
    error = body.get("error", body) if isinstance(body, Mapping) else body
    if isinstance(error, Mapping):
        told = f"{error.get('type') or ''} {error.get('code') or ''}".strip()
        return told[:200], str(error.get("message") or "")[:4000]
    if isinstance(error, str):
        return "", error[:4000]
    return "", "" if error is None else json.dumps(error, default=str)[:4000]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `retry-after` or `retry-after-ms` asks for; dates are not read."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) * unit
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None

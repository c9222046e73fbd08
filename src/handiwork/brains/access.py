"""Access to a brain over the official SDK: which key a call carries, and what its failure means.

The SDK's errors end here: callers see the tree of `model/errors.py`. A call of one session carries
that session's token where the work item brought one, else (or once the token has expired) the
environment key; neither is ever logged.
"""

import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anthropic
import httpx2
import msgspec

from handiwork.brains import wire
from handiwork.model.errors import (
    BrainRefusedError,
    BrainUnavailableError,
    ForbiddenError,
    HandiworkError,
    NotFoundError,
    UnauthorizedError,
)
from handiwork.model.session import WorkItem

REQUEST_SECONDS = 30.0

_KEEPALIVE_SECONDS = 60.0
_TRANSIENT = frozenset({408, 409, 429})

MAX_SHOWN_CHARS = 500
_KEY = re.compile(r"(sk-ant-|whsec_|hwlb_|hwlbenv_|[Bb]earer )[A-Za-z0-9+/=._~-]+")

T = TypeVar("T")


class Access:
    """The clients of one environment: one with its key, one for each session that has a token."""

    def __init__(self, *, environment_key: str, base_url: str) -> None:
        self._base_url = base_url
        self._http = _http_client(base_url)
        self._environment = self._with_key(environment_key)
        self._scoped: dict[str, anthropic.AsyncAnthropic] = {}

    @property
    def environment(self) -> anthropic.AsyncAnthropic:
        """Return the client that carries the environment key."""
        return self._environment

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def open(self, work: WorkItem) -> None:
        """Take up the token of the item's secret, where it has one."""
        token = wire.sessions_token(work.secret)
        if token:
            self._scoped[work.id] = self._with_key(token)

    def shut(self, work: WorkItem) -> None:
        """Forget the item's token."""
        self._scoped.pop(work.id, None)

    def of(self, work: WorkItem) -> anthropic.AsyncAnthropic:
        """Return the client for calls of this item's session."""
        return self._scoped.get(work.id, self._environment)

    def scoped(self, work: WorkItem) -> anthropic.AsyncAnthropic | None:
        """Return the client with the session's own token; None where there is none."""
        return self._scoped.get(work.id)

    def drop(
        self, work: WorkItem, used: anthropic.AsyncAnthropic, error: UnauthorizedError
    ) -> bool:
        """Go on with the environment key; False when that was what failed, or would not be right.

        Whoever lost the lease is told that it is forbidden, and gets past that with no other key.
        """
        if used is self._environment or isinstance(error, ForbiddenError):
            return False
        self._scoped.pop(work.id, None)
        return True

    async def call(
        self,
        work: WorkItem,
        what: str,
        call: Callable[[anthropic.AsyncAnthropic], Awaitable[T]],
    ) -> T:
        """Call with the session's token; with the environment key when that is not known any more."""
        api = self.of(work)
        try:
            with told(what):
                return await call(api)
        except UnauthorizedError as error:
            if not self.drop(work, api, error):
                raise
        with told(what):
            return await call(self._environment)

    def _with_key(self, key: str) -> anthropic.AsyncAnthropic:
        return anthropic.AsyncAnthropic(
            auth_token=key,
            base_url=self._base_url,
            http_client=self._http,
            max_retries=0,
            timeout=REQUEST_SECONDS,
        )


def _http_client(base_url: str) -> httpx2.AsyncClient:
    """Return one pool for all sessions; a proxy of the environment is not for loopback."""
    host = urlsplit(base_url).hostname or ""
    return anthropic.DefaultAsyncHttpxClient(
        base_url=base_url,
        trust_env=host not in ("127.0.0.1", "::1", "localhost"),
        limits=httpx2.Limits(
            max_connections=None,
            max_keepalive_connections=100,
            keepalive_expiry=_KEEPALIVE_SECONDS,
        ),
    )


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """Map the SDK's errors and those of its transport to ours; `what` is what was tried."""
    try:
        yield
    except anthropic.APIStatusError as error:
        raise _mapped(what, error) from None
    except (anthropic.APIConnectionError, httpx2.HTTPError, OSError) as error:
        raise BrainUnavailableError(f"cannot {what}: {plain(str(error))}") from None
    except anthropic.AnthropicError as error:
        reason = plain(str(error))
        raise BrainUnavailableError(f"cannot {what}: malformed answer: {reason}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        # Text of an event that is none, and JSON that is nested deeper than it can be read.
        reason = type(error).__name__
        raise BrainUnavailableError(f"cannot {what}: malformed answer: {reason}") from None


def plain(text: str) -> str:
    """Return what may be shown of a text from outside: short, on one line, no key in it.

    A gateway may echo what it was sent, and a terminal obeys control characters.
    """
    shown = _KEY.sub(lambda found: f"{found.group(1)}…", text[: 2 * MAX_SHOWN_CHARS])
    line = "".join(char if char.isprintable() else " " for char in shown)
    return line if len(line) <= MAX_SHOWN_CHARS else line[: MAX_SHOWN_CHARS - 1] + "…"


def _mapped(what: str, error: anthropic.APIStatusError) -> HandiworkError:
    status = error.status_code
    text = f"cannot {what}: the brain answered {status}: {plain(error.message)}"
    if status in _TRANSIENT or status >= 500:
        wait = wire.retry_seconds(error.response.headers)
        return BrainUnavailableError(text, retry_seconds=wait)
    if status == 403:
        return ForbiddenError(text)
    if status == 401:
        return UnauthorizedError(text)
    if status == 404:
        return NotFoundError(text)
    return BrainRefusedError(text)


def body_of(answer: Any, what: str) -> dict[str, Any] | None:
    """Return the JSON object of a raw answer; None for `null` and for an empty body."""
    content: bytes = answer.http_response.content
    if not content.strip():
        return None
    try:
        return wire.read_json(content)
    except msgspec.MsgspecError as error:
        raise BrainUnavailableError(f"the brain's {what} is malformed: {error}") from None

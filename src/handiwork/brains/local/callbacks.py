"""How this server calls back: through the egress proxy, which resolves, checks and dials.

An endpoint is whoever's an API key says, so its URL decides nothing here. Straight to it goes only
what the operator wrote down (`local_brain.webhook_hosts`).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx2

from handiwork.brains.local.webhook_rules import check_url
from handiwork.observe import log

ATTEMPT_SECONDS = 10.0
MAX_CONNECTIONS = 8

_OURS = ("x-handiwork-error", "x-handiwork-rule")

_log = log.get("callbacks")


@dataclass(frozen=True)
class Callbacks:
    """The ways out. `exit_path` is a socket of the proxy; None: only `direct` hosts are reached."""

    exit_path: str | None
    direct: Collection[str] = ()

    def check(self, url: str) -> str:
        """Return the URL; ValueError says why it could never be called."""
        host = check_url(url, self.direct)
        if self.exit_path is None and host not in self.direct:
            raise ValueError("url: this server has no way out to it; see local_brain.webhook_hosts")
        return url

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator["Calls"]:
        """Keep connections while the body runs."""
        async with contextlib.AsyncExitStack() as stack:
            straight = await stack.enter_async_context(_client(None))
            proxied = None
            if self.exit_path is not None:
                proxied = await stack.enter_async_context(_client(self.exit_path))
            yield Calls(self, straight, proxied)


class Calls:
    """Makes calls."""

    def __init__(
        self, ways: Callbacks, straight: httpx2.AsyncClient, proxied: httpx2.AsyncClient | None
    ) -> None:
        self._ways = ways
        self._straight = straight
        self._proxied = proxied

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        """Return the answer's status, whose body is not read; None when nobody answered."""
        try:
            request = self._request(url, body, headers)
            if request is None:
                return None
            client, built = request
            async with asyncio.timeout(ATTEMPT_SECONDS):
                answer = await client.send(built, stream=True)
                try:
                    return self._status(answer)
                finally:
                    await answer.aclose()
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as error:
            _log.info("no_answer", error=type(error).__name__)
            return None

    def _request(
        self, url: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[httpx2.AsyncClient, httpx2.Request] | None:
        parts = urlsplit(url)
        if parts.hostname in self._ways.direct:
            client = self._straight
            return client, client.build_request("POST", url, content=body, headers=headers)
        if self._proxied is None:
            return None
        client = self._proxied
        built = client.build_request(
            "POST",
            "http://exit/",
            content=body,
            headers={**headers, "host": parts.netloc},
            extensions={"target": url.encode("ascii")},
        )
        return client, built

    def _status(self, answer: httpx2.Response) -> int | None:
        """A refusal of the proxy's is nobody's answer; it takes these fields out of all others."""
        told = [answer.headers[name] for name in _OURS if name in answer.headers]
        if not told:
            return answer.status_code
        _log.info("not_reached", reason=told[0][:300])
        return None


def _client(exit_path: str | None) -> httpx2.AsyncClient:
    limits = httpx2.Limits(max_connections=MAX_CONNECTIONS)
    transport = httpx2.AsyncHTTPTransport(uds=exit_path, limits=limits, trust_env=False)
    return httpx2.AsyncClient(
        transport=transport, timeout=ATTEMPT_SECONDS, follow_redirects=False, trust_env=False
    )

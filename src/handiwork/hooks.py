"""What a hook is written with: `from handiwork.hooks import Answer, Context, Deny, Request, Response`.

A hook is a file of its own. It has one of these, or both:

    async def on_request(ctx: Context, request: Request) -> Answer | Deny | None
    async def on_response(ctx: Context, request: Request, response: Response) -> Answer | Deny | None

None goes on with what the hook made of the request or the answer, which it changes in place.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Pairs = Iterable[tuple[str, str]]


class Headers:
    """The fields of a head, in order; names in lower case. A name may stand more than once."""

    def __init__(self, pairs: Pairs = ()) -> None:
        self._pairs = [(name.lower(), value) for name, value in pairs]

    def get(self, name: str, default: str = "") -> str:
        """Return the first value of a name."""
        return next((value for known, value in self._pairs if known == name.lower()), default)

    def all(self, name: str) -> list[str]:
        """Return every value of a name."""
        return [value for known, value in self._pairs if known == name.lower()]

    def set(self, name: str, value: str) -> None:
        """Have the name once, with this value."""
        self.remove(name)
        self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Add a field; others of its name stay."""
        self._pairs.append((name.lower(), value))

    def remove(self, name: str) -> None:
        """Remove every field of the name. No-op when there is none."""
        self._pairs = [pair for pair in self._pairs if pair[0] != name.lower()]

    def __contains__(self, name: str) -> bool:
        return any(known == name.lower() for known, _ in self._pairs)

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return f"Headers({', '.join(name for name, _ in self._pairs)})"


@dataclass(kw_only=True, slots=True)
class Request:
    """A request that policy permits so far. All but `method` may be changed; it is judged again.

    `host` is canonical, `path` normalised; `query` is what follows `?`. `body` is None where the
    rule lets the hook read none: it streams by. Values of secrets are never in here.
    """

    method: str
    scheme: str
    host: str
    port: int
    path: str
    query: str = ""
    headers: Headers = field(default_factory=Headers)
    body: bytes | None = None


@dataclass(kw_only=True, slots=True)
class Response:
    """An answer, masked. `body` is None where it streams by; one that is set then replaces it."""

    status: int
    headers: Headers = field(default_factory=Headers)
    body: bytes | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """Answers in the upstream's place."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Deny:
    """Refuses; the sandbox is told `reason`."""

    reason: str = ""


class Http(Protocol):
    """A hook's own way out: judged by the policy that `hooks.policy` names, and by no hook."""

    async def send(
        self, method: str, url: str, *, headers: Pairs = (), body: bytes = b""
    ) -> Response:
        """Return the whole answer; OSError where there is none. A refusal is an answer (403)."""
        ...

    async def get(self, url: str, *, headers: Pairs = ()) -> Response:
        """Send a GET."""
        ...

    async def post(self, url: str, *, headers: Pairs = (), body: bytes = b"") -> Response:
        """Send a POST."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """Who asks, and what the hook may use.

    `secrets` are those that the rule grants, by name. `directory` is the hooks' own, to keep files
    in. `tool` and `tool_use_id` are set where a tool of the host asks.
    """

    tenant: str
    agent_id: str
    session_id: str
    sandbox_id: str
    tool: str
    tool_use_id: str
    directory: Path
    http: Http
    secrets: Mapping[str, str] = field(repr=False)

"""What guest code calls: `codemode.NAME(...)`, `workspace.NAME(...)` and `fetch(url)`."""

import base64
import json as json_text
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

Call = Callable[[str, object], Any]


class Namespace:
    """Any name is a function: which exist is the host's to know, and its answer says so."""

    def __init__(self, name: str, call: Call) -> None:
        self.__name = name
        self.__call = call

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)  # what Python itself asks any object for

        def function(*positional: Any, **named: Any) -> Any:
            if len(positional) == 1 and isinstance(positional[0], dict):
                named = {**positional[0], **named}
            elif positional:
                named = {"$arguments": list(positional), **named}
            return self.__call(f"{self.__name}.{name}", named)

        return function

    def __repr__(self) -> str:
        return f"<{self.__name}>"


class Response:
    """An answer to `fetch`. Names of headers are in lower case; the body is read as it comes, once."""

    def __init__(self, told: Mapping[str, Any], call: Call) -> None:
        self.status: int = told["status"]
        self.url: str = told["url"]
        self.redirected: bool = told["redirected"]
        self.headers: dict[str, str] = {}
        for name, value in told["headers"]:
            known = name.lower()
            self.headers[known] = (
                f"{self.headers[known]}, {value}" if known in self.headers else value
            )
        self._body = told["body"]
        self._call = call

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return 200 <= self.status <= 299

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body, self._body = self._body, None
        while body is not None:
            piece = await self._call("net.read", {"body": body})
            if piece is None:
                return
            yield base64.b64decode(piece)

    async def bytes(self) -> bytes:
        """Return the rest of the body."""
        return b"".join([piece async for piece in self])

    async def text(self) -> str:
        """Return it as text; what is no UTF-8 is U+FFFD."""
        return (await self.bytes()).decode("utf-8", "replace").removeprefix("\ufeff")

    async def json(self) -> Any:
        """Return what it says as JSON."""
        return json_text.loads(await self.bytes())


def fetcher(call: Call) -> Callable[..., Any]:
    """Return the `fetch` of a cell."""

    async def fetch(
        url: str,
        *,
        method: str = "",
        headers: Mapping[str, str] | None = None,
        body: bytes | str | None = None,
        json: Any = None,
        redirect: str = "follow",
    ) -> Response:
        given = [[str(name), str(value)] for name, value in dict(headers or {}).items()]
        if json is not None:
            body = json_text.dumps(json)
            if "content-type" not in {name.lower() for name, _ in given}:
                given.append(["content-type", "application/json"])
        asked: dict[str, Any] = {
            "url": str(url),
            "method": method.upper() or ("GET" if body is None else "POST"),
            "headers": given,
            "redirect": redirect,
        }
        if body is not None:
            data = body.encode() if isinstance(body, str) else bytes(body)
            asked["body"] = base64.b64encode(data).decode()
        return Response(await call("net.fetch", asked), call)

    return fetch

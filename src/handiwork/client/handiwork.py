"""The client: `async with Handiwork(…) as hw`."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from handiwork.client.images import Images
from handiwork.client.link import Link
from handiwork.client.models import Models
from handiwork.client.runs import Runs
from handiwork.client.sandboxes import Sandboxes
from handiwork.client.sessions import Sessions
from handiwork.client.settings import Agents, Audit, Environments, Hooks, Policies, Secrets
from handiwork.client.webhooks import Webhooks


class Handiwork:
    """A control plane, reached over TCP with its admin key or over its unix socket.

    Errors are those of `handiwork.model.errors`; what fails on the way is HandiworkError. Only a
    GET whose connection was refused is sent again.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        socket: str | os.PathLike[str] | None = None,
    ) -> None:
        link = Link(
            base_url=base_url, api_key=api_key, socket=None if socket is None else Path(socket)
        )
        self._link = link
        self.sandboxes = Sandboxes(link)
        self.sessions = Sessions(link)
        self.agents = Agents(link)
        self.policies = Policies(link)
        self.secrets = Secrets(link)
        self.hooks = Hooks(link)
        self.models = Models(link)
        self.images = Images(link)
        self.audit = Audit(link)
        self.environments = Environments(link)
        self.runs = Runs(link)
        self.webhooks = Webhooks(link)

    def __repr__(self) -> str:
        return f"Handiwork({self._link.place!r})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; sandboxes live on."""
        await self._link.close()

    async def readiness(self) -> dict[str, str]:
        """Return each part of a ready control plane; HandiworkError when it is not ready."""
        return await self._link.get("/readyz", dict[str, str])

    async def parts(self) -> dict[str, str]:
        """Return each part with `ready`, or with why it is not."""
        answer = await self._link.raw("GET", "/readyz", also=503)
        return msgspec.json.decode(answer, type=dict[str, str])

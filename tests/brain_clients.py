"""Both clients of the unmodified SDK as one: a test written once drives the sync and the async one.

async with brain_client(brain, "async") as client:
    store = await client(lambda sdk: sdk.beta.memory_stores.create(name="n"))
    names = await client.all(lambda sdk: sdk.beta.memory_stores.list())
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from anthropic import Anthropic, AsyncAnthropic

from brain_process import BrainProcess

KINDS = ("sync", "async")


class Client:
    """Makes a call with whichever client it holds."""

    def __init__(self, sdk: Anthropic | AsyncAnthropic) -> None:
        self.sdk = sdk

    async def __call__(self, call: Callable[[Any], Any]) -> Any:
        """Make the call; a sync one runs in a thread, as the server does not."""
        if isinstance(self.sdk, Anthropic):
            return await asyncio.to_thread(call, self.sdk)
        answer = call(self.sdk)
        return await answer if inspect.isawaitable(answer) else answer

    async def all(self, call: Callable[[Any], Any]) -> list[Any]:
        """Return every item of a list, over all its pages."""
        if isinstance(self.sdk, Anthropic):
            return await asyncio.to_thread(lambda: list(call(self.sdk)))
        return [item async for item in call(self.sdk)]


@asynccontextmanager
async def brain_client(
    brain: BrainProcess, kind: str, key: str | None = None
) -> AsyncIterator[Client]:
    """Open a client of the brain with the API key, or another."""
    options: dict[str, Any] = {"base_url": brain.base_url, "max_retries": 0, "timeout": 20}
    options["auth_token" if key else "api_key"] = key or brain.api_key
    if kind == "sync":
        with Anthropic(**options) as sdk:
            yield Client(sdk)
    else:
        async with AsyncAnthropic(**options) as made:
            yield Client(made)

"""The port of placement: which node runs a session."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class Fleet(Protocol):
    """Places sessions on nodes and knows where they run."""

    @property
    def free(self) -> int:
        """How many places are neither used nor reserved; claiming stops at 0."""
        ...

    async def reserve(self) -> None:
        """Take a place for a body to come, waiting in turn until one is free."""
        ...

    def release(self) -> None:
        """Give back a place that was reserved and is not used."""
        ...

    async def submit(
        self, session_id: str, run: Callable[[], Awaitable[None]], *, reserved: bool = False
    ) -> None:
        """Run a session's body in a reserved place or a free one; ConflictError when none is free.

        A body of the same session that still runs is given a moment to end, then cancelled: its
        work item was replaced.
        """
        ...

    def apart(self) -> AbstractAsyncContextManager[None]:
        """Give the calling body's place to others meanwhile; leaving waits in turn for one.

        A body that ends in there, by an error or cancelled, has no place to give back.
        """
        ...

    async def stop(self, session_id: str) -> bool:
        """Cancel a session's body and wait for its end; False when it does not run here."""
        ...

    async def emptied(self) -> None:
        """Return when no body runs."""
        ...

    async def drain(self) -> None:
        """Cancel every body and wait for all of them."""
        ...

"""The port of placement: which node runs a session."""

from collections.abc import Awaitable, Callable
from typing import Protocol


class Fleet(Protocol):
    """Places sessions on nodes and knows where they run."""

    @property
    def free(self) -> int:
        """How many more sessions may be submitted now; claiming stops at 0."""
        ...

    async def wait_free(self) -> None:
        """Return as soon as `free` is above 0."""
        ...

    async def submit(self, session_id: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a session's body; ConflictError when nothing is free.

        A body of the same session that still runs is given a moment to end, then cancelled: its
        work item was replaced.
        """
        ...

    async def stop(self, session_id: str) -> bool:
        """Cancel a session's body and wait for its end; False when it does not run here."""
        ...

    async def drain(self) -> None:
        """Cancel every body and wait for all of them."""
        ...

"""The port of a brain: where work comes from, and where results go."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from handiwork.model.environment import QueueStats
from handiwork.model.placeholder import Credential
from handiwork.model.session import BrainEvent, BrainSession, WorkItem
from handiwork.model.tool import ToolResult


class Brain(Protocol):
    """One environment of a Claude-Managed-Agents-compatible service."""

    @property
    def environment_id(self) -> str:
        """The environment whose queue this is."""
        ...

    async def claim(self) -> WorkItem | None:
        """Wait briefly for work and claim it (polled and acknowledged); None when there is none.

        BrainUnavailableError: retry with backoff. UnauthorizedError, NotFoundError: give up.
        Healthcheck items are answered inside and never returned.
        """
        ...

    async def resume(self) -> Sequence[WorkItem]:
        """Return the items that a former run of ours held to its end; `hold` goes on with each.

        Ask before the first claim. A lease that lapsed meanwhile is lost, which `hold` tells.
        """
        ...

    async def stats(self) -> QueueStats:
        """Return how the brain counts its queue. Errors as for `claim`."""
        ...

    def hold(self, work: WorkItem) -> AbstractAsyncContextManager[None]:
        """Keep the lease while the body runs; stop the item at its end.

        What a successor needs to go on with the lease is on record before the body runs.

        A lost lease cancels the body and raises LeaseLostError without stopping the item. When the
        brain asks to stop, the body is cancelled, the item is stopped and the context ends without
        an error: a body that was cut short so must notice it itself.
        """
        ...

    async def describe(self, work: WorkItem) -> BrainSession:
        """Return the brain's view of the session."""
        ...

    async def credentials(self, work: WorkItem) -> tuple[Credential, ...]:
        """Return the sealed secrets that the session's vaults bring along; often there are none."""
        ...

    def events(self, work: WorkItem) -> AsyncGenerator[BrainEvent, None]:
        """Yield what happens, history first: stream opened, whole history listed, then live.

        BrainReached comes before the history of each connection, BrainUnreached whenever one could
        not be made. Reconnects by itself and reconciles again; a call is yielded once per connection at most
        and never when it is already answered. Ends after BrainSessionEnded; a refusal for good is
        UnauthorizedError, NotFoundError or BrainRefusedError. Close it (`contextlib.aclosing`).
        """
        ...

    async def post(self, work: WorkItem, result: ToolResult) -> None:
        """Post a result; transient errors are retried within a limit (BrainUnavailableError after it).

        BrainRefusedError: the brain refused this result for good.
        """
        ...

    async def close(self) -> None:
        """Release its connections."""
        ...

"""The ports of a brain: where work comes from and results go, and what sessions bring along."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from handiwork.model.attachment import Memory, SkillRef, SkillVersion
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

    async def ended(self, session_id: str) -> str:
        """Say why a session of this environment is over for good; empty: it is not. One try.

        BrainUnavailableError, UnauthorizedError, NotFoundError, BrainRefusedError: it is not known.
        """
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
        """Post a result; transient errors, and a key that is refused, are retried within a limit.

        BrainUnavailableError: it was not taken by then, and may be later.
        BrainRefusedError: the brain refused this result for good.
        """
        ...

    async def close(self) -> None:
        """Release its connections."""
        ...


class Skills(Protocol):
    """Where the skills of a session's agent come from.

    Errors: UnauthorizedError when no key of ours may, NotFoundError, BrainUnavailableError (retry),
    BrainRefusedError.
    """

    async def version(self, work: WorkItem, skill: SkillRef) -> SkillVersion:
        """Return what a reference, which may say `latest`, stands for."""
        ...

    async def archive(self, work: WorkItem, version: SkillVersion, limit_bytes: int) -> bytes:
        """Return a version's archive; BrainRefusedError when it is larger than the limit."""
        ...


class Memories(Protocol):
    """The memory stores of a session. A path is unique within its store.

    Errors: UnauthorizedError (the work item brought no token, or it may not), NotFoundError,
    ConflictError (a precondition failed, or the path is taken), BrainUnavailableError (retry),
    BrainRefusedError (this content or path will never be taken).
    """

    def all(self, work: WorkItem, store_id: str, *, contents: bool) -> AsyncGenerator[Memory, None]:
        """Yield every memory of a store. Close it (`contextlib.aclosing`)."""
        ...

    async def get(self, work: WorkItem, store_id: str, memory_id: str) -> Memory:
        """Return one memory with its content."""
        ...

    async def create(self, work: WorkItem, store_id: str, path: str, content: str) -> Memory:
        """Add a memory."""
        ...

    async def update(self, work: WorkItem, store_id: str, memory: Memory, content: str) -> Memory:
        """Change a memory that still has `memory.sha256`."""
        ...

    async def delete(self, work: WorkItem, store_id: str, memory: Memory) -> None:
        """Delete a memory that still has `memory.sha256`."""
        ...

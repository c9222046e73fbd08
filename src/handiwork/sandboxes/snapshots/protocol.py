"""What a driver does besides, whose sandboxes' files can be kept elsewhere and made again."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from handiwork.sandboxes.snapshots.contents import Content
from handiwork.sandboxes.snapshots.listing import Listing, Rules
from handiwork.sandboxes.snapshots.manifest import Entry
from handiwork.sandboxes.snapshots.owners import Range

Entries = Sequence[Entry]
"""What was made, parents before children."""
Make = Callable[[int, Range], Awaitable[Entries]]
"""Makes a tree as `upper` in an open directory, for the ids of a sandbox, and returns what it made."""


@dataclass(frozen=True)
class Origin:
    """What a state is: the digest of its image, the ids of its files, a name of this very tree."""

    image: str
    ids: Range
    tree: str


class Tree(Protocol):
    """What a sandbox wrote, as one upper directory would hold it; it holds still. Every call blocks."""

    def flush(self) -> bool:
        """See to it that every later write to a file changes a time; False where it never would."""
        ...

    def listed(self, rules: Rules, read: Callable[[Entry, Content], None]) -> Listing:
        """Walk it, giving each file that is new to `read`; SandboxUnavailableError."""
        ...


@runtime_checkable
class KeepsFiles(Protocol):
    """A driver that lets the files of its sandboxes be read, and makes them anew."""

    def origin(self, sandbox_id: str) -> Origin:
        """Tell what a state is; NotFoundError when its files are not on this host."""
        ...

    def still(self, sandbox_id: str) -> AbstractAsyncContextManager[Tree]:
        """Yield what the sandbox wrote; nothing of one that runs runs meanwhile.

        GuestError, or SandboxUnavailableError, when somebody could not be held, on entry or found at
        the end: what was read is worth nothing. NotFoundError when its files are not on this host.
        """
        ...

    async def settle(self, sandbox_id: str, disk_mib: int) -> None:
        """Bring files that lie in layers together where that is worth it; the sandbox must not run."""
        ...

    async def remake(
        self, sandbox_id: str, image: str, disk_mib: int, make: Make, *, forked: bool = False
    ) -> None:
        """Put a tree that `make` makes beside in the place of the sandbox's, in one step.

        `forked`: it was another sandbox's; its first start gives this one a machine-id of its own.
        What fails leaves the state that is there. The sandbox must not run: ConflictError.
        """
        ...

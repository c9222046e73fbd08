"""What a driver does besides, whose sandboxes' files can be kept elsewhere and made again."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from handiwork.sandboxes.snapshots.owners import Range

Make = Callable[[int, Range], Awaitable[None]]
"""Makes a tree as `upper` in an open directory, for the ids of a sandbox."""


@dataclass(frozen=True)
class Origin:
    """What a state is: the digest of its image, its host ids, a name of this very tree."""

    image: str
    ids: Range
    tree: str


@runtime_checkable
class KeepsFiles(Protocol):
    """A driver whose sandboxes write into an upper directory."""

    def origin(self, sandbox_id: str) -> Origin:
        """Tell what a state is; NotFoundError when its files are not on this host."""
        ...

    def uppers(self, sandbox_id: str) -> AbstractAsyncContextManager[Sequence[int]]:
        """Yield descriptors of the directories that hold what the sandbox wrote, topmost first.

        Only the first changes; each is an overlay's layer, and takes away from those below it.
        """
        ...

    def lower(self, sandbox_id: str) -> AbstractAsyncContextManager[int | None]:
        """Yield a descriptor of the root of its image where its files lie in layers, else None."""
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

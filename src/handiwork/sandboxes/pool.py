"""Sandboxes that are made before they are wanted, kept by what they are like.

The tier makes them, tells whether one still stands, and ends them; here is how many there are. One
that is taken is its taker's.
"""

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from typing import Generic, Protocol, TypeVar

from handiwork.config import PooledSettings, SandboxSettings
from handiwork.model.errors import HandiworkError
from handiwork.model.sandbox import Limits, limits_of
from handiwork.observe import log
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.protocol import Wish

_LOG = log.get("sandboxes")
Key = TypeVar("Key", bound=Hashable)

SandboxKind = tuple[str, Limits]
"""What a sandbox is like: the digest of its image, and its limits."""


class Standing(Protocol):
    """An entry: nobody's yet."""

    @property
    def stands(self) -> bool:
        """Whether it can still be taken."""
        ...

    async def end(self) -> None:
        """End it, with all it has on the host."""
        ...


Entry = TypeVar("Entry", bound=Standing)


class Pool(Generic[Key, Entry]):
    """The entries of one driver. `fill` runs in one task at a time; `take` is free at any moment."""

    def __init__(
        self, make: Callable[[Key], Awaitable[Entry]], told: Callable[[int], None] = lambda _: None
    ) -> None:
        """`told` hears how many stand ready, whenever that changes."""
        self._make = make
        self._told = told
        self._ready: dict[Key, list[Entry]] = {}
        self._ending: list[Entry] = []

    def __len__(self) -> int:
        """Return how many stand ready."""
        return sum(len(entries) for entries in self._ready.values())

    def take(self, key: Key) -> Entry | None:
        """Return an entry like this, the caller's now; None where there is none that stands."""
        entries = self._ready.get(key, [])
        for number, entry in enumerate(entries):
            if entry.stands:  # what does not is ended by the next `fill`
                del entries[number]
                self._told(len(self))
                return entry
        return None

    async def fill(self, wanted: Mapping[Key, int]) -> None:
        """Make entries, one by one, until as many stand as are wanted; end all others.

        What fails of one kind is raised when all others were tried.
        """
        await self._end()
        for key in list(self._ready):
            await self._trim(key, wanted.get(key, 0))
        failed: HandiworkError | None = None
        for key, count in wanted.items():
            try:
                await self._raise_to(key, count)
            except HandiworkError as error:
                failed = failed or error
        if failed is not None:
            raise failed

    async def _raise_to(self, key: Key, count: int) -> None:
        entries = self._ready.setdefault(key, [])
        while len(entries) < count:
            entries.append(await self._make(key))
            self._told(len(self))

    async def _trim(self, key: Key, most: int) -> None:
        standing = [entry for entry in self._ready[key] if entry.stands]
        kept = standing[:most]
        ended = [entry for entry in self._ready[key] if entry not in kept]
        self._ready[key] = kept
        if not kept:
            del self._ready[key]
        self._told(len(self))
        self._ending += ended
        await self._end()

    async def _end(self) -> None:
        """End those that nobody gets any more; what cannot be ended now the next `fill` tries again."""
        while self._ending:
            await self._ending[-1].end()
            self._ending.pop()


async def kinds_of(
    wishes: Sequence[Wish], resolve: Callable[[str], Awaitable[Image]]
) -> dict[SandboxKind, int]:
    """Return how many are wished for of each kind; an image that is not there is told, and left out."""
    wanted: dict[SandboxKind, int] = {}
    for wish in wishes:
        if not wish.sandboxes:
            continue
        try:
            kind = (await resolve(wish.image)).digest, wish.limits
        except HandiworkError as error:
            _LOG.warning("none of this image stands ready", image=wish.image, reason=str(error))
        else:
            wanted[kind] = wanted.get(kind, 0) + wish.sandboxes
    return wanted


def wishes_of(settings: SandboxSettings, tier: str) -> list[Wish]:
    """Return what is to stand ready of a tier; what its default sandboxes need always is."""
    default = PooledSettings(tier=settings.tier, ready=settings.pool.ready)
    pooled = [one for one in (default, *settings.pool.more) if one.tier == tier]
    wishes = [
        Wish(
            image=one.image or settings.image,
            limits=limits_of(one.size, None) or settings.limits,
            sandboxes=one.ready,
        )
        for one in pooled
    ]
    return wishes or [Wish(image=settings.image, limits=settings.limits)]

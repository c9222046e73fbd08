"""What an interrupted taking or a kill between two steps left: manifests without a row, rows without one.

A manifest that the database does not tell of and that reads is told of from then on, for it may be the
newest state there is, and goes as others go: what was removed on purpose has no manifest any more. One
that is damaged, or of a closed sandbox, is deleted. One whose sandbox nobody has a record of is left
alone: it may be all that is left of a lost database, or another one's.

Of a row whose manifest is gone nothing can be made, and it counts among those that are kept, in place of
one that reads. It goes, unless somebody pinned it: that is told. Where the store has no manifest at all it
is more likely another store, or one that is not mounted, and every row stays.
"""

from collections.abc import Callable, Mapping, Sequence

from handiwork.config import SnapshotSettings
from handiwork.model.errors import ConflictError, NotFoundError
from handiwork.model.snapshot import Snapshot
from handiwork.observe import log
from handiwork.sandboxes.snapshots.retention import outlived
from handiwork.sandboxes.snapshots.sealing import DamagedError
from handiwork.sessions.snapshots.shelf import Shelf

MOST_ORPHANS = 256
"""Decided on in one sweep; the others wait for the next ones."""
MAX_TOLD = 3
"""Of the sandboxes that nobody knows, or the pinned ones that are lost, in one line of the log."""

Orphan = tuple[str, int]
"""A sandbox and a number."""

Numbers = Mapping[str, Sequence[int]]
"""The numbers of each sandbox of which the store has a manifest."""


class Orphans:
    """Looks for them on a shelf. `now` is a steady clock in seconds."""

    def __init__(
        self, shelf: Shelf, settings: SnapshotSettings, *, now: Callable[[], float]
    ) -> None:
        self._shelf = shelf
        self._settings = settings
        self._untold = _Grace(settings.grace_seconds, now)
        self._lost = _Grace(settings.grace_seconds, now)
        self._log = log.get("snapshots")

    async def look(self) -> None:
        """See to what was found so at each look all through the grace."""
        listed = await self._listed()  # before the manifests: a taking writes its row last
        kept = await self._shelf.work(lambda generations: generations.all_numbers())
        await self._settle(kept)
        await self._drop_lost(listed, kept)

    async def _settle(self, kept: Numbers) -> None:
        unwanted: dict[Orphan, str] = {}
        for orphan in self._untold.ripe(await self._found(kept))[:MOST_ORPHANS]:
            if reason := await self._unwanted(*orphan):
                unwanted[orphan] = reason
        if not unwanted:
            return
        async with self._shelf.alone():  # a taking tells of its manifest before it is over
            for orphan, reason in unwanted.items():
                await self._delete(*orphan, reason)

    # --- rows without a manifest ---

    async def _listed(self) -> Sequence[Snapshot]:
        sandboxes = await self._shelf.store.snapshots.sandboxes()
        return [one for sandbox_id in sandboxes for one in await self._shelf.all(sandbox_id)]

    async def _drop_lost(self, listed: Sequence[Snapshot], kept: Numbers) -> None:
        if listed and not kept:
            self._log.warning(
                "the store of snapshots has none of those that are listed: see that it is the right one,"
                " and there",
                count=len(listed),
            )
            listed = ()  # the grace begins anew when it is back
        lost = {
            (one.sandbox_id, one.number): bool(one.pins)
            for one in listed
            if one.number not in kept.get(one.sandbox_id, ())
        }
        ripe = self._lost.ripe([*lost])
        if pinned := [one for one in ripe if lost[one]]:
            self._tell_pinned(pinned)
        if gone := [one for one in ripe if not lost[one]]:
            async with self._shelf.alone():  # a taking may give the number anew
                for one in gone[:MOST_ORPHANS]:
                    await self._drop(*one)

    async def _drop(self, sandbox_id: str, number: int) -> None:
        if number in await self._shelf.numbers(sandbox_id):
            return
        try:
            await self._shelf.unlist(sandbox_id, number)
        except ConflictError:  # somebody pinned it meanwhile: that is told the next time
            return
        self._log.warning("snapshot without a manifest dropped", sandbox=sandbox_id, number=number)

    def _tell_pinned(self, pinned: Sequence[Orphan]) -> None:
        self._log.warning(
            "pinned snapshots have no manifest and cannot be restored: put their manifests back, or"
            " remove the pins",
            count=len(pinned),
            first=[f"{sandbox_id}/{number}" for sandbox_id, number in pinned[:MAX_TOLD]],
        )

    # --- manifests without a row ---

    async def _found(self, kept: Numbers) -> Sequence[Orphan]:
        """Return those of sandboxes that are known. A row goes after its manifest: rows are read last."""
        found: list[Orphan] = []
        strangers: dict[str, int] = {}
        for sandbox_id, numbers in kept.items():
            if lost := await self._without_row(sandbox_id, numbers):
                if await self._knows(sandbox_id):
                    found += [(sandbox_id, number) for number in lost]
                else:
                    strangers[sandbox_id] = len(lost)
        if strangers:
            self._tell(strangers)
        return found

    async def _without_row(self, sandbox_id: str, numbers: Sequence[int]) -> Sequence[int]:
        rows = {one.number for one in await self._shelf.all(sandbox_id)}
        return sorted(set(numbers) - rows)

    async def _knows(self, sandbox_id: str) -> bool:
        try:
            await self._shelf.store.sandboxes.get(sandbox_id)
        except NotFoundError:
            return False
        return True

    def _tell(self, strangers: Mapping[str, int]) -> None:
        self._log.warning(
            "snapshots of sandboxes without a record are kept: put the newer database back, or"
            " delete their manifests",
            count=sum(strangers.values()),
            first=[*strangers][:MAX_TOLD],
        )

    async def _unwanted(self, sandbox_id: str, number: int) -> str:
        """Say why one is to be deleted; empty where it is told of from now on, or gone."""
        shelf = self._shelf
        closed_at = await shelf.closed_at(sandbox_id)
        if outlived(closed_at, shelf.clock(), closed_seconds=self._settings.closed_seconds):
            return "its sandbox is closed"
        try:
            manifest = await shelf.work(lambda generations: generations.load(sandbox_id, number))
        except DamagedError as error:
            return str(error)
        except NotFoundError:
            return ""
        await shelf.adopt(manifest.head)
        self._log.warning("snapshot that nobody told of", sandbox=sandbox_id, number=number)
        return ""

    async def _delete(self, sandbox_id: str, number: int, reason: str) -> None:
        if not await self._without_row(sandbox_id, [number]):
            return
        await self._shelf.work(lambda generations: generations.forget(sandbox_id, number))
        self._log.warning(
            "snapshot that nobody told of deleted",
            sandbox=sandbox_id,
            number=number,
            reason=reason,
        )


class _Grace:
    """Since when each was found; `now` is a steady clock."""

    def __init__(self, seconds: float, now: Callable[[], float]) -> None:
        self._seconds = seconds
        self._now = now
        self._since: dict[Orphan, float] = {}

    def ripe(self, found: Sequence[Orphan]) -> Sequence[Orphan]:
        """Take in what was found now; return what was, at each look, for so long."""
        now = self._now()
        self._since = {one: self._since.get(one, now) for one in found}
        return [one for one, since in self._since.items() if now - since >= self._seconds]

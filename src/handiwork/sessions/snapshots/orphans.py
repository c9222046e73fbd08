"""Manifests that the database does not tell of: what an interrupted taking or a kill between two steps left.

One that reads is told of from then on, for it may be the newest state there is, and goes as others go:
what was removed on purpose has no manifest any more. One that is damaged, or of a closed sandbox, is
deleted. One whose sandbox nobody has a record of is left alone: it may be all that is left of a lost
database, or another one's.
"""

from collections.abc import Callable, Mapping, Sequence

from handiwork.config import SnapshotSettings
from handiwork.model.errors import NotFoundError
from handiwork.observe import log
from handiwork.sandboxes.snapshots.retention import outlived
from handiwork.sandboxes.snapshots.sealing import DamagedError
from handiwork.sessions.snapshots.shelf import Shelf

MOST_ORPHANS = 256
"""Decided on in one sweep; the others wait for the next ones."""
MAX_TOLD = 3
"""Of the sandboxes that nobody knows, in one line of the log."""

Orphan = tuple[str, int]
"""A sandbox and a number."""


class Orphans:
    """Looks for them on a shelf. `now` is a steady clock in seconds."""

    def __init__(
        self, shelf: Shelf, settings: SnapshotSettings, *, now: Callable[[], float]
    ) -> None:
        self._shelf = shelf
        self._settings = settings
        self._now = now
        self._since: dict[Orphan, float] = {}
        self._log = log.get("snapshots")

    async def look(self) -> None:
        """Tell of, or delete, those that nobody told of all through the grace."""
        unwanted: dict[Orphan, str] = {}
        for orphan in self._ripe(await self._found()):
            if reason := await self._unwanted(*orphan):
                unwanted[orphan] = reason
        if not unwanted:
            return
        async with self._shelf.alone():  # a taking tells of its manifest before it is over
            for orphan, reason in unwanted.items():
                await self._delete(*orphan, reason)

    def _ripe(self, found: Sequence[Orphan]) -> Sequence[Orphan]:
        now, grace = self._now(), self._settings.grace_seconds
        self._since = {one: self._since.get(one, now) for one in found}
        return [one for one, since in self._since.items() if now - since >= grace][:MOST_ORPHANS]

    async def _found(self) -> Sequence[Orphan]:
        """Return those of sandboxes that are known. A row goes after its manifest: rows are read last."""
        kept = await self._shelf.work(lambda generations: generations.all_numbers())
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

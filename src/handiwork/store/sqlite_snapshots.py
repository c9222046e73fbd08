"""What is known of snapshots, and notices for brains, in the database."""

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, func, select

from handiwork.model.errors import ConflictError, NotFoundError
from handiwork.model.snapshot import MAX_PINS, Notice, Snapshot, SnapshotStatus
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import (
    microseconds,
    notices,
    snapshot_pins,
    snapshot_states,
    snapshots,
)


class SqliteSnapshots:
    """Implements `store.protocol.Snapshots`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def put(self, snapshot: Snapshot) -> None:
        """Insert or replace; its pins are not kept with it."""
        key = self._key(snapshot.sandbox_id) | {"number": snapshot.number}
        values = {"body": rows.encoded(msgspec.structs.replace(snapshot, pins=()))}
        await self._database.write(lambda to: rows.upsert(to, snapshots, key, values))

    async def list(self, sandbox_id: str) -> list[Snapshot]:
        """Return those of a sandbox with their pins, the newest first."""
        query = (
            select(snapshots.c.body)
            .where(snapshots.c.tenant == self._tenant, snapshots.c.sandbox_id == sandbox_id)
            .order_by(snapshots.c.number.desc())
        )
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        names: dict[int, list[str]] = {}
        for name, number in (await self.pins(sandbox_id)).items():
            names.setdefault(number, []).append(name)
        found = [rows.decoded(body, Snapshot) for body in bodies]
        return [
            msgspec.structs.replace(one, pins=tuple(sorted(names.get(one.number, ()))))
            for one in found
        ]

    async def remove(self, sandbox_id: str, number: int) -> None:
        """Forget one; ConflictError while it is pinned."""

        def forget(to: Connection) -> None:
            pinned = select(snapshot_pins.c.name).where(
                *self._pins_of(sandbox_id), snapshot_pins.c.number == number
            )
            if name := to.execute(pinned).scalar():
                raise ConflictError(f"snapshot {number} of {sandbox_id} is pinned as {name!r}")
            to.execute(delete(snapshots).where(*self._is(sandbox_id, number)))

        await self._database.write(forget)

    async def sandboxes(self) -> Sequence[str]:
        """Return the ids of the sandboxes that have any, sorted."""
        query = (
            select(snapshots.c.sandbox_id)
            .where(snapshots.c.tenant == self._tenant)
            .distinct()
            .order_by(snapshots.c.sandbox_id)
        )
        return await self._database.read(lambda at: at.execute(query).scalars().all())

    async def pin(self, sandbox_id: str, name: str, number: int) -> None:
        """Let a name stand for one, in place of what it stood for."""
        key = self._key(sandbox_id) | {"name": name}

        def keep(to: Connection) -> None:
            there = select(snapshots.c.number).where(*self._is(sandbox_id, number))
            if to.execute(there).scalar() is None:
                raise NotFoundError(f"{sandbox_id} has no snapshot {number}")
            others = select(func.count()).where(
                *self._pins_of(sandbox_id), snapshot_pins.c.name != name
            )
            if (to.execute(others).scalar() or 0) >= MAX_PINS:
                raise ConflictError(f"{sandbox_id} has {MAX_PINS} pins already; remove one")
            rows.upsert(to, snapshot_pins, key, {"number": number})

        await self._database.write(keep)

    async def unpin(self, sandbox_id: str, name: str) -> None:
        """Forget a name."""
        query = delete(snapshot_pins).where(
            *self._pins_of(sandbox_id), snapshot_pins.c.name == name
        )
        gone = await self._database.write(lambda to: to.execute(query).rowcount)
        if not gone:
            raise NotFoundError(f"{sandbox_id} has no pin {name[:80]!r}")

    async def pins(self, sandbox_id: str) -> Mapping[str, int]:
        """Return number by name."""
        query = select(snapshot_pins.c.name, snapshot_pins.c.number).where(
            *self._pins_of(sandbox_id)
        )
        found = await self._database.read(lambda at: at.execute(query).all())
        return {row.name: row.number for row in found}

    async def tell(self, status: SnapshotStatus) -> None:
        """Keep how the last try went."""
        key, values = self._key(status.sandbox_id), {"body": rows.encoded(status)}
        await self._database.write(lambda to: rows.upsert(to, snapshot_states, key, values))

    async def status(self, sandbox_id: str) -> SnapshotStatus:
        """Return it; an empty one where there was no try."""
        key = self._key(sandbox_id)
        found = await self._database.read(
            lambda at: rows.body(at, snapshot_states, key, SnapshotStatus)
        )
        return found or SnapshotStatus(sandbox_id=sandbox_id)

    def _key(self, sandbox_id: str) -> dict[str, object]:
        return {"tenant": self._tenant, "sandbox_id": sandbox_id}

    def _is(self, sandbox_id: str, number: int) -> tuple[ColumnElement[bool], ...]:
        return (
            snapshots.c.tenant == self._tenant,
            snapshots.c.sandbox_id == sandbox_id,
            snapshots.c.number == number,
        )

    def _pins_of(self, sandbox_id: str) -> tuple[ColumnElement[bool], ...]:
        return (
            snapshot_pins.c.tenant == self._tenant,
            snapshot_pins.c.sandbox_id == sandbox_id,
        )


class SqliteNotices:
    """Implements `store.protocol.Notices`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def add(self, notice: Notice) -> None:
        """Keep one."""
        key = {"tenant": self._tenant, "id": notice.id}
        values = {
            "session_id": notice.session_id,
            "at_us": microseconds(notice.at),
            "body": rows.encoded(notice),
        }
        await self._database.write(lambda to: rows.upsert(to, notices, key, values))

    async def list(self, session_id: str) -> Sequence[Notice]:
        """Return those of a session, the oldest first."""
        query = (
            select(notices.c.body)
            .where(notices.c.tenant == self._tenant, notices.c.session_id == session_id)
            .order_by(notices.c.at_us, notices.c.id)
        )
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, Notice) for body in bodies]

    async def remove(self, ids: Sequence[str]) -> None:
        """Forget those that were told."""
        query = delete(notices).where(notices.c.tenant == self._tenant, notices.c.id.in_(list(ids)))
        await self._database.write(lambda to: to.execute(query))

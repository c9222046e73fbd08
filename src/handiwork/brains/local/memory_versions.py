"""The history of memory stores: read by filters, and redacted for good."""

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, select, update

from handiwork.brains.local.clock import Clock
from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import invalid, missing
from handiwork.brains.local.memories import Actor
from handiwork.brains.local.paging import Page, Query, first, moments
from handiwork.brains.local.queue import timestamp
from handiwork.brains.local.tables import MEMORIES, MEMORY_VERSIONS
from handiwork.store.database import Database

_FILTERS = {
    "memory_id": MEMORY_VERSIONS.c.memory_id,
    "operation": MEMORY_VERSIONS.c.operation,
    "session_id": MEMORY_VERSIONS.c.author_session_id,
    "api_key_id": MEMORY_VERSIONS.c.api_key_id,
}


class MemoryVersions:
    """The versions of all stores; each change of a memory has written one."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get(self, store_id: str, version_id: str, *, full: bool) -> Document:
        """Return a version; 404."""
        row = await self._database.read(lambda each: _version(each, store_id, version_id))
        return _view(row.body, row.content if full else None)

    async def list(self, store_id: str, query: Query, page: Page, *, full: bool) -> Document:
        """List a store's versions, newest first."""
        column = MEMORY_VERSIONS.c.created_at
        conditions = [*page.condition(column), *moments(query, "created_at", column)]
        conditions += _filters(query)
        chosen = (
            select(column, MEMORY_VERSIONS.c.body, MEMORY_VERSIONS.c.content)
            .where(MEMORY_VERSIONS.c.store_id == store_id, *conditions)
            .order_by(page.ordered(column))
            .limit(page.limit + 1)
        )

        def rows(connection: Connection) -> list[tuple[str | int, Any]]:
            return [
                (row[0], _view(row[1], row[2] if full else None))
                for row in connection.execute(chosen)
            ]

        return page.answer(await self._database.read(rows))

    async def redact(self, store_id: str, version_id: str, by: Actor) -> Document:
        """Forget what a version held and where; 400 for what a memory holds now."""
        now = timestamp(self._clock())

        def change(connection: Connection) -> Document:
            version = _view(_version(connection, store_id, version_id).body, None)
            if version["redacted_at"] is not None:
                return version
            held = select(MEMORIES.c.id).where(MEMORIES.c.version_id == version_id)
            if connection.execute(held).first() is not None:
                raise invalid(
                    f"memory version {version_id} is what memory {version['memory_id']} holds now:"
                    " change or delete the memory first"
                )
            version |= {"redacted_at": now, "redacted_by": by}
            version |= dict.fromkeys(("path", "content_sha256", "content_size_bytes"))
            body = {key: value for key, value in version.items() if key != "content"}
            connection.execute(
                update(MEMORY_VERSIONS)
                .where(MEMORY_VERSIONS.c.id == version_id)
                .values(body=msgspec.json.encode(body), content=None)
            )
            return version

        return await self._database.write(change)


def _filters(query: Query) -> list[ColumnElement[bool]]:
    wanted = [(column, first(query, name)) for name, column in _FILTERS.items()]
    conditions = [column == value for column, value in wanted if value is not None]
    if first(query, "service_account_id") is not None:
        # No service account ever wrote here, so none of the versions is one's.
        conditions.append(MEMORY_VERSIONS.c.id.is_(None))
    return conditions


def _version(connection: Connection, store_id: str, version_id: str) -> Any:
    row = connection.execute(
        select(MEMORY_VERSIONS.c.body, MEMORY_VERSIONS.c.content).where(
            MEMORY_VERSIONS.c.id == version_id, MEMORY_VERSIONS.c.store_id == store_id
        )
    ).first()
    if row is None:
        raise missing("memory version", version_id)
    return row


def _view(body: bytes, content: str | None) -> Document:
    return {**msgspec.json.decode(body), "content": content}

"""Memory stores, their memories, and the versions that tell who changed what.

A change of a memory and the version that records it are one write. Versions are dropped, oldest
first, beyond `MAX_VERSIONS` of a store; the one that a memory holds now is never dropped.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from handiwork.brains.local import documents
from handiwork.brains.local.clock import Clock, NewId
from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import WireError, invalid, missing
from handiwork.brains.local.memory import (
    MAX_MEMORIES,
    MemoryRuleError,
    check_content,
    check_path,
    collides,
    digest,
    listing,
)
from handiwork.brains.local.memory_shapes import (
    MemoryCreate,
    MemoryUpdate,
    StoreCreate,
    StoreUpdate,
    memory_view,
)
from handiwork.brains.local.paging import Page, Query
from handiwork.brains.local.queue import timestamp
from handiwork.brains.local.shapes import merged
from handiwork.brains.local.tables import MEMORIES, MEMORY_STORES, MEMORY_VERSIONS
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.store.database import Database

MAX_VERSIONS = 4000

Actor = dict[str, str]


class Memories:
    """All memory stores."""

    def __init__(self, database: Database, clock: Clock, new_id: NewId) -> None:
        self._database = database
        self._clock = clock
        self._new_id = new_id

    async def create_store(self, body: StoreCreate) -> Document:
        """Keep a new store."""
        now = timestamp(self._clock())
        store = {
            "id": self._new_id("memstore"),
            "type": "memory_store",
            "name": body.name,
            "description": body.description,
            "metadata": body.metadata,
            "created_at": now,
            "updated_at": now,
            "archived_at": None,
        }
        await self._database.write(lambda each: documents.add(each, MEMORY_STORES, store))
        return store

    async def store(self, store_id: str) -> Document:
        """Return a store; 404."""
        return await self._database.read(lambda connection: _store(connection, store_id))

    async def stores(self, query: Query, page: Page) -> Document:
        """List stores, newest first."""
        return await documents.listed(self._database, MEMORY_STORES, query, page)

    async def update_store(self, store_id: str, body: StoreUpdate) -> Document:
        """Change what is given; 400 for an archived store."""
        now = timestamp(self._clock())

        def change(connection: Connection) -> Document:
            store = _store(connection, store_id, writable=True)
            store |= {
                "name": store["name"] if body.name is None else body.name,
                "metadata": merged(store["metadata"], body.metadata),
                "updated_at": now,
            }
            if body.description is not None:
                store["description"] = body.description
            documents.put(connection, MEMORY_STORES, store)
            return store

        return await self._database.write(change)

    async def archive_store(self, store_id: str) -> Document:
        """End changes of a store for good; again changes nothing."""
        now = timestamp(self._clock())
        return await self._database.write(
            lambda each: documents.archive(each, MEMORY_STORES, _store(each, store_id), now)
        )

    async def delete_store(self, store_id: str) -> None:
        """Remove a store with its memories and their versions."""

        def change(connection: Connection) -> None:
            _store(connection, store_id)
            for table in (MEMORIES, MEMORY_VERSIONS):
                connection.execute(delete(table).where(table.c.store_id == store_id))
            connection.execute(delete(MEMORY_STORES).where(MEMORY_STORES.c.id == store_id))

        await self._database.write(change)

    async def create(self, store_id: str, body: MemoryCreate, by: Actor, *, full: bool) -> Document:
        """Keep a new memory; 409 when its path is taken."""
        content = _ruled(check_content, body.content or "")
        path = _ruled(check_path, body.path)
        now, memory_id = timestamp(self._clock()), self._new_id("mem")
        version_id = self._new_id("memver")
        memory = {
            "id": memory_id,
            "type": "memory",
            "memory_store_id": store_id,
            "path": path,
            **_held(content, version_id),
            "created_at": now,
            "updated_at": now,
        }

        def change(connection: Connection) -> None:
            _store(connection, store_id, writable=True)
            if _count(connection, store_id) >= MAX_MEMORIES:
                raise invalid(f"memory store {store_id} holds {MAX_MEMORIES} memories, the most")
            _check_free(connection, store_id, path)
            connection.execute(
                insert(MEMORIES),
                {
                    "id": memory_id,
                    "tenant_id": DEFAULT_TENANT,
                    "store_id": store_id,
                    "path": path,
                    "version_id": version_id,
                    "body": msgspec.json.encode(memory),
                    "content": content,
                },
            )
            _record(connection, "created", memory, content, by)

        await self._database.write(change)
        return memory_view(memory, content if full else None)

    async def get(self, store_id: str, memory_id: str, *, full: bool) -> Document:
        """Return a memory; 404."""
        memory, content = await self._database.read(
            lambda connection: _memory(connection, store_id, memory_id)
        )
        return memory_view(memory, content if full else None)

    async def update(
        self, store_id: str, memory_id: str, body: MemoryUpdate, by: Actor, *, full: bool
    ) -> Document:
        """Change content, path or both; 409 when the precondition fails or the path is taken."""
        now, version_id = timestamp(self._clock()), self._new_id("memver")

        def change(connection: Connection) -> Document:
            _store(connection, store_id, writable=True)
            memory, content = _memory(connection, store_id, memory_id)
            if body.precondition is not None:
                _check_digest(memory, body.precondition.content_sha256)
            after, path = content, memory["path"]
            if body.content is not None:
                after = _ruled(check_content, body.content)
            if body.path is not None:
                path = _ruled(check_path, body.path)
            if (after, path) == (content, memory["path"]):
                return memory_view(memory, after if full else None)
            if path != memory["path"]:
                _check_free(connection, store_id, path, beside=memory["path"])
            memory |= {"path": path, **_held(after, version_id), "updated_at": now}
            connection.execute(
                update(MEMORIES)
                .where(MEMORIES.c.id == memory_id)
                .values(
                    path=path,
                    version_id=version_id,
                    body=msgspec.json.encode(memory),
                    content=after,
                )
            )
            _record(connection, "modified", memory, after, by)
            return memory_view(memory, after if full else None)

        return await self._database.write(change)

    async def delete(
        self, store_id: str, memory_id: str, by: Actor, *, expected: str | None
    ) -> None:
        """Remove a memory; 409 when it holds something other than expected. Its versions stay."""
        now, version_id = timestamp(self._clock()), self._new_id("memver")

        def change(connection: Connection) -> None:
            _store(connection, store_id)
            memory, _ = _memory(connection, store_id, memory_id)
            if expected is not None:
                _check_digest(memory, expected)
            connection.execute(delete(MEMORIES).where(MEMORIES.c.id == memory_id))
            gone = {**memory, "memory_version_id": version_id, "updated_at": now}
            _record(connection, "deleted", gone, None, by)

        await self._database.write(change)

    async def list(
        self, store_id: str, page: Page, *, prefix: str, depth: int, full: bool
    ) -> Document:
        """List a store's memories by path, deeper ones as prefixes."""

        def rows(connection: Connection) -> list[tuple[str | int, Any]]:
            _store(connection, store_id)
            shown = listing(_paths(connection, store_id), prefix, depth)
            after = [path for path in shown if page.after is None or path > str(page.after)]
            return _shown(connection, store_id, after[: page.limit + 1], full=full)

        return page.answer(await self._database.read(rows))


def _ruled(check: Callable[[str], str], given: str) -> str:
    try:
        return check(given)
    except MemoryRuleError as broken:
        raise invalid(str(broken)) from None


def _held(content: str, version_id: str) -> Document:
    return {
        "content_sha256": digest(content),
        "content_size_bytes": len(content.encode()),
        "memory_version_id": version_id,
    }


def _store(connection: Connection, store_id: str, *, writable: bool = False) -> Document:
    store = documents.read(connection, MEMORY_STORES, "memory store", store_id)
    if writable and store["archived_at"]:
        raise invalid(f"memory store {store_id} is archived: nothing can be written to it")
    return store


def _memory(connection: Connection, store_id: str, memory_id: str) -> tuple[Document, str]:
    row = connection.execute(
        select(MEMORIES.c.body, MEMORIES.c.content).where(
            MEMORIES.c.id == memory_id, MEMORIES.c.store_id == store_id
        )
    ).first()
    if row is None:
        raise missing("memory", memory_id)
    return msgspec.json.decode(row.body), row.content


def _count(connection: Connection, store_id: str) -> int:
    query = select(func.count()).select_from(MEMORIES).where(MEMORIES.c.store_id == store_id)
    return connection.execute(query).scalar_one()


def _paths(connection: Connection, store_id: str) -> list[str]:
    query = select(MEMORIES.c.path).where(MEMORIES.c.store_id == store_id)
    return sorted(connection.execute(query).scalars())


def _check_free(
    connection: Connection, store_id: str, path: str, *, beside: str | None = None
) -> None:
    """Refuse a path that another memory has, or that would be a file and a directory at once."""
    others = (other for other in _paths(connection, store_id) if other != beside)
    taken = collides(path, others)
    if taken is not None:
        raise WireError(
            409,
            f"path: {path!r} conflicts with the memory at {taken!r}",
            kind="memory_path_conflict_error",
        )


def _check_digest(memory: Document, expected: str | None) -> None:
    if expected != memory["content_sha256"]:
        raise WireError(
            409,
            f"memory {memory['id']} holds other content than expected",
            kind="memory_precondition_failed_error",
        )


def _shown(
    connection: Connection, store_id: str, shown: list[str], *, full: bool
) -> list[tuple[str | int, Any]]:
    columns = [MEMORIES.c.path, MEMORIES.c.body, *([MEMORIES.c.content] if full else [])]
    query = select(*columns).where(MEMORIES.c.store_id == store_id, MEMORIES.c.path.in_(shown))
    found = {
        row.path: memory_view(msgspec.json.decode(row.body), row.content if full else None)
        for row in connection.execute(query)
    }
    return [(path, found.get(path, {"type": "memory_prefix", "path": path})) for path in shown]


def _record(
    connection: Connection, operation: str, memory: Document, content: str | None, by: Actor
) -> None:
    """Add the version that a change makes; the store's oldest go where it has too many."""
    kept = content is not None
    version = {
        "id": memory["memory_version_id"],
        "type": "memory_version",
        "memory_id": memory["id"],
        "memory_store_id": memory["memory_store_id"],
        "operation": operation,
        "path": memory["path"],
        "content_sha256": memory["content_sha256"] if kept else None,
        "content_size_bytes": memory["content_size_bytes"] if kept else None,
        "created_by": by,
        "created_at": memory["updated_at"],
        "redacted_at": None,
        "redacted_by": None,
    }
    connection.execute(
        insert(MEMORY_VERSIONS),
        {
            "id": version["id"],
            "tenant_id": DEFAULT_TENANT,
            "store_id": memory["memory_store_id"],
            "memory_id": memory["id"],
            "created_at": version["created_at"],
            "operation": operation,
            "api_key_id": by.get("api_key_id"),
            "author_session_id": by.get("session_id"),
            "body": msgspec.json.encode(version),
            "content": content,
        },
    )
    _drop_oldest(connection, memory["memory_store_id"])


def _drop_oldest(connection: Connection, store_id: str) -> None:
    of_store = MEMORY_VERSIONS.c.store_id == store_id
    count = connection.execute(
        select(func.count()).select_from(MEMORY_VERSIONS).where(of_store)
    ).scalar_one()
    if count <= MAX_VERSIONS:
        return
    current = select(MEMORIES.c.version_id).where(MEMORIES.c.store_id == store_id)
    oldest = (
        select(MEMORY_VERSIONS.c.id)
        .where(of_store, MEMORY_VERSIONS.c.id.not_in(current))
        .order_by(MEMORY_VERSIONS.c.created_at)
        .limit(count - MAX_VERSIONS)
    )
    connection.execute(delete(MEMORY_VERSIONS).where(MEMORY_VERSIONS.c.id.in_(oldest)))

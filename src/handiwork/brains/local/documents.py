"""JSON documents in tables of one form: read, added, replaced, listed newest first."""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Table, insert, select, update

from handiwork.brains.local.errors import missing
from handiwork.brains.local.paging import Page, Query, flag, moments
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.store.database import Database

Document = dict[str, Any]


def decoded(row: Row[Any] | None, kind: str, name: str) -> Document:
    """Return the document of a row that has a `body`; 404 where there is none."""
    if row is None:
        raise missing(kind, name)
    document: Document = msgspec.json.decode(row.body)
    return document


def read(connection: Connection, table: Table, kind: str, name: str) -> Document:
    """Return a document by id; 404."""
    row = connection.execute(select(table.c.body).where(table.c.id == name)).first()
    return decoded(row, kind, name)


def row_of(document: Document) -> Document:
    """Return the columns that every table of documents has."""
    return {
        "id": document["id"],
        "tenant_id": DEFAULT_TENANT,
        "created_at": document["created_at"],
        "archived_at": document.get("archived_at"),
        "body": msgspec.json.encode(document),
    }


def add(connection: Connection, table: Table, document: Document, **more: Any) -> None:
    """Insert a document; IntegrityError when a column that must be unique is not."""
    connection.execute(insert(table), {**row_of(document), **more})


def put(connection: Connection, table: Table, document: Document, **more: Any) -> None:
    """Replace a document."""
    row = row_of(document)
    connection.execute(
        update(table)
        .where(table.c.id == document["id"])
        .values(archived_at=row["archived_at"], body=row["body"], **more)
    )


def archive(connection: Connection, table: Table, document: Document, now: str) -> Document:
    """Mark a document as archived; again changes nothing."""
    if document["archived_at"] is None:
        document |= {"archived_at": now, "updated_at": now}
        put(connection, table, document)
    return document


async def listed(
    database: Database,
    table: Table,
    query: Query,
    page: Page,
    conditions: Sequence[ColumnElement[bool]] = (),
) -> Document:
    """Return a page of documents, archived ones only where `include_archived` asks for them."""
    column = table.c.created_at
    wanted = [*conditions, *page.condition(column), *moments(query, "created_at", column)]
    if not flag(query, "include_archived"):
        wanted.append(table.c.archived_at.is_(None))
    chosen = (
        select(column, table.c.body)
        .where(*wanted)
        .order_by(page.ordered(column))
        .limit(page.limit + 1)
    )

    def rows(connection: Connection) -> list[tuple[str | int, Any]]:
        return [(row[0], msgspec.json.decode(row[1])) for row in connection.execute(chosen)]

    return page.answer(await database.read(rows))

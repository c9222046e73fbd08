"""Frozen types to rows and back, and the one way to insert or replace."""

from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Table, insert, select, update

T = TypeVar("T")


def encoded(value: Any) -> str:
    """Return the JSON that `body` columns keep."""
    return msgspec.json.encode(value).decode()


def decoded(body: str, kind: type[T]) -> T:
    """Return what `encoded` kept."""
    return msgspec.json.decode(body, type=kind)


def check_tenant(tenant: str, of: str) -> None:
    """ValueError when a record of one tenant is written to the store of another."""
    if of != tenant:
        raise ValueError(f"a record of tenant {of!r} in the store of tenant {tenant!r}")


def upsert(
    connection: Connection, table: Table, key: dict[str, Any], values: dict[str, Any]
) -> None:
    """Replace the row of this key, or insert it. Right because one thread writes."""
    changed = connection.execute(update(table).where(*_is(table, key)).values(values))
    if changed.rowcount == 0:
        connection.execute(insert(table).values(key | values))


def body(connection: Connection, table: Table, key: dict[str, Any], kind: type[T]) -> T | None:
    """Return the body of the row of this key, or None."""
    text = connection.execute(select(table.c.body).where(*_is(table, key))).scalar()
    return None if text is None else decoded(text, kind)


def _is(table: Table, key: dict[str, Any]) -> list[Any]:
    return [table.c[name] == value for name, value in key.items()]

"""Keys of environments that this server makes: shown once, kept as digests, void once deleted."""

import base64
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from handiwork.brains.local.catalog import Catalog
from handiwork.brains.local.clock import Clock, NewId
from handiwork.brains.local.documents import Document
from handiwork.brains.local.errors import invalid, missing
from handiwork.brains.local.keys import ENVIRONMENT_PREFIX, Caller, Keyring, Kind, digest, key_id
from handiwork.brains.local.queue import timestamp
from handiwork.brains.local.tables import KEYS
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.store.database import Database

MAX_KEYS = 20
"""Keys of one environment."""
KEY_BYTES = 32
SHOWN = 12
"""Characters of a key's digest that a list tells it by."""


class EnvironmentKeys:
    """All keys of environments; several are good at once, so that one can follow another."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        keyring: Keyring,
        clock: Clock,
        new_id: NewId,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._keyring = keyring
        self._clock = clock
        self._new_id = new_id
        self._entropy = entropy

    async def create(self, environment_id: str) -> Document:
        """Make a key; `key` in the answer is shown this once."""
        environment = await self._catalog.environment(environment_id)
        if environment["archived_at"]:
            raise invalid(f"environment {environment_id} is archived")
        made = base64.urlsafe_b64encode(self._entropy(KEY_BYTES)).decode().rstrip("=")
        key = f"{ENVIRONMENT_PREFIX}{made}"
        row = {
            "digest": digest(key),
            "tenant_id": DEFAULT_TENANT,
            "kind": Kind.ENVIRONMENT,
            "environment_id": environment_id,
            "id": self._new_id("envkey"),
            "created_at": timestamp(self._clock()),
        }

        def change(connection: Connection) -> None:
            of_environment = KEYS.c.environment_id == environment_id
            count = select(func.count()).select_from(KEYS).where(of_environment)
            if connection.execute(count).scalar_one() >= MAX_KEYS:
                raise invalid(f"environment {environment_id} has {MAX_KEYS} keys: delete one first")
            connection.execute(insert(KEYS), row)

        await self._database.write(change)
        caller = Caller(Kind.ENVIRONMENT, environment_id, key_id=str(row["id"]))
        self._keyring.add(str(row["digest"]), caller)
        return {**_view(row), "key": key}

    async def list(self, environment_id: str) -> Document:
        """Return an environment's keys, told apart by the start of their digests."""
        await self._catalog.environment(environment_id)
        query = select(KEYS).where(KEYS.c.environment_id == environment_id)

        def read(connection: Connection) -> list[Document]:
            rows = connection.execute(query.order_by(KEYS.c.created_at)).mappings()
            return [_view(row) for row in rows]

        return {"data": await self._database.read(read), "next_page": None}

    async def delete(self, environment_id: str, name: str) -> None:
        """Void a key, at once; 400 for one that came with the bootstrap and would come again."""
        await self._catalog.environment(environment_id)
        query = select(KEYS).where(KEYS.c.environment_id == environment_id)

        def change(connection: Connection) -> str:
            for row in connection.execute(query).mappings().all():
                if _view(row)["id"] != name:
                    continue
                if row["id"] is None:
                    raise invalid(f"key {name} comes with the server's bootstrap: replace it there")
                connection.execute(delete(KEYS).where(KEYS.c.digest == row["digest"]))
                return str(row["digest"])
            raise missing("environment key", name)

        self._keyring.remove(await self._database.write(change))


def _view(row: Any) -> Document:
    return {
        "id": row["id"] or key_id(row["digest"]),
        "type": "environment_key",
        "environment_id": row["environment_id"],
        "digest_prefix": row["digest"][:SHOWN],
        "created_at": row["created_at"],
    }

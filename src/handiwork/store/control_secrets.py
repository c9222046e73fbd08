"""Secrets of our own in the database, sealed under the tenant's data key."""

from typing import Self

from sqlalchemy import Connection, delete, insert, select

from handiwork.store import envelope, rows
from handiwork.store.database import Database
from handiwork.store.tables import control_keys, control_secrets


class SqliteControlSecrets:
    """Implements `store.protocol.ControlSecrets`."""

    def __init__(self, database: Database, tenant: str, data_key: bytes) -> None:
        self._database = database
        self._tenant = tenant
        self._data_key = data_key

    @classmethod
    async def open(cls, database: Database, tenant: str, control_key: bytes) -> Self:
        """Unwrap the tenant's data key, made at the first time; ConfigError for a wrong key."""
        place = f"{tenant}/data-key"
        fresh = envelope.seal(control_key, envelope.new_key(), place)

        def keep(to: Connection) -> bytes:
            query = select(control_keys.c.wrapped).where(control_keys.c.tenant == tenant)
            wrapped: bytes | None = to.execute(query).scalar()
            if wrapped is None:
                to.execute(insert(control_keys), {"tenant": tenant, "wrapped": fresh})
            return wrapped or fresh

        wrapped = await database.write(keep)
        return cls(database, tenant, envelope.unseal(control_key, wrapped, place))

    async def put(self, name: str, value: str) -> None:
        """Insert or replace."""
        key = {"tenant": self._tenant, "name": name}
        values = {"sealed": self.seal(value, f"secret/{name}")}
        await self._database.write(lambda to: rows.upsert(to, control_secrets, key, values))

    async def get(self, name: str) -> str | None:
        """Return the value, or None."""
        query = select(control_secrets.c.sealed).where(
            control_secrets.c.tenant == self._tenant, control_secrets.c.name == name
        )
        sealed = await self._database.read(lambda at: at.execute(query).scalar())
        if sealed is None:
            return None
        return self.unseal(sealed, f"secret/{name}")

    async def delete(self, name: str) -> None:
        """Forget one."""
        query = delete(control_secrets).where(
            control_secrets.c.tenant == self._tenant, control_secrets.c.name == name
        )
        await self._database.write(lambda to: to.execute(query))

    def seal(self, value: str, place: str) -> bytes:
        """Seal a secret that another table keeps; it opens at this place of the tenant only."""
        return envelope.seal(self._data_key, value.encode(), f"{self._tenant}/{place}")

    def unseal(self, sealed: bytes, place: str) -> str:
        """Open what `seal` sealed for this place; ConfigError when it was moved or changed."""
        return envelope.unseal(self._data_key, sealed, f"{self._tenant}/{place}").decode()

"""The models of the local brain, in the database; their keys are control secrets."""

from sqlalchemy import Connection, delete, select

from handiwork.model.errors import NotFoundError
from handiwork.model.language_model import ModelSettings
from handiwork.store import rows
from handiwork.store.database import Database
from handiwork.store.tables import models


class SqliteModels:
    """Implements `store.protocol.Models`."""

    def __init__(self, database: Database, tenant: str) -> None:
        self._database = database
        self._tenant = tenant

    async def put(self, settings: ModelSettings) -> None:
        """Insert or replace."""
        key = {"tenant": self._tenant, "name": settings.name}
        values = {"body": rows.encoded(settings)}
        await self._database.write(lambda to: rows.upsert(to, models, key, values))

    async def get(self, name: str) -> ModelSettings | None:
        """Return None when there is none."""
        key = {"tenant": self._tenant, "name": name}
        return await self._database.read(lambda at: rows.body(at, models, key, ModelSettings))

    async def list(self) -> list[ModelSettings]:
        """Return all, by name."""
        query = select(models.c.body).where(models.c.tenant == self._tenant)
        query = query.order_by(models.c.name)
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [rows.decoded(body, ModelSettings) for body in bodies]

    async def delete(self, name: str) -> None:
        """Forget it, or raise NotFoundError."""

        def forget(to: Connection) -> None:
            named = (models.c.tenant == self._tenant, models.c.name == name)
            if to.execute(delete(models).where(*named)).rowcount == 0:
                raise NotFoundError(f"there is no model {name!r}")

        await self._database.write(forget)

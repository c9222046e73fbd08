"""Leases that we hold, so that a restart goes on with them; the secret of each is sealed."""

import msgspec
from sqlalchemy import delete, select

from handiwork.model.environment import KeptLease
from handiwork.store import rows
from handiwork.store.control_secrets import SqliteControlSecrets
from handiwork.store.database import Database
from handiwork.store.tables import leases


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a row: the lease without its secret, and the secret as only we can open it."""

    lease: KeptLease
    sealed: bytes | None = None


class SqliteLeases:
    """Implements `store.protocol.Leases`."""

    def __init__(self, database: Database, tenant: str, secrets: SqliteControlSecrets) -> None:
        self._database = database
        self._tenant = tenant
        self._secrets = secrets

    async def save(self, lease: KeptLease) -> None:
        """Insert or replace."""
        rows.check_tenant(self._tenant, lease.tenant)
        work = lease.work
        key = {
            "tenant": self._tenant,
            "environment_id": work.environment_id,
            "work_id": work.id,
        }
        row = _Row(
            lease=msgspec.structs.replace(lease, work=msgspec.structs.replace(work, secret=None)),
            sealed=self._secrets.seal(work.secret, _place(work.id)) if work.secret else None,
        )
        values = {"body": rows.encoded(row)}
        await self._database.write(lambda to: rows.upsert(to, leases, key, values))

    async def list(self) -> list[KeptLease]:
        """Return all, by work id, then environment."""
        query = (
            select(leases.c.body)
            .where(leases.c.tenant == self._tenant)
            .order_by(leases.c.work_id, leases.c.environment_id)
        )
        bodies = await self._database.read(lambda at: at.execute(query).scalars().all())
        return [self._opened(rows.decoded(body, _Row)) for body in bodies]

    async def remove(self, environment_id: str, work_id: str) -> None:
        """Forget one; it is fine when there is none."""
        gone = delete(leases).where(
            leases.c.tenant == self._tenant,
            leases.c.environment_id == environment_id,
            leases.c.work_id == work_id,
        )
        await self._database.write(lambda to: to.execute(gone))

    def _opened(self, row: _Row) -> KeptLease:
        if row.sealed is None:
            return row.lease
        work = row.lease.work
        opened = self._secrets.unseal(row.sealed, _place(work.id))
        return msgspec.structs.replace(row.lease, work=msgspec.structs.replace(work, secret=opened))


def _place(work_id: str) -> str:
    return f"lease/{work_id}"

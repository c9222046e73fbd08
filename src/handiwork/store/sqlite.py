"""The store in one SQLite file: the adapter that a single machine uses."""

from pathlib import Path

from handiwork.model.ids import DEFAULT_TENANT
from handiwork.store.control_secrets import SqliteControlSecrets
from handiwork.store.database import Database
from handiwork.store.sqlite_audit import SqliteAudit
from handiwork.store.sqlite_leases import SqliteLeases
from handiwork.store.sqlite_ledger import SqliteLedger
from handiwork.store.sqlite_models import SqliteModels
from handiwork.store.sqlite_placeholders import SqlitePlaceholders
from handiwork.store.sqlite_processes import SqliteProcesses
from handiwork.store.sqlite_runs import SqliteRuns
from handiwork.store.sqlite_sandboxes import SqliteSandboxes
from handiwork.store.sqlite_sessions import SqliteSessions
from handiwork.store.sqlite_settings import SqliteAgents, SqlitePolicies, SqliteSecrets
from handiwork.store.sqlite_snapshots import SqliteNotices, SqliteSnapshots
from handiwork.store.sqlite_webhooks import SqliteWebhooks

MIGRATIONS = Path(__file__).with_name("migrations")


class SqliteStore:
    """Implements `store.protocol.Store` for one tenant."""

    def __init__(
        self, database: Database, tenant: str, control_secrets: SqliteControlSecrets
    ) -> None:
        self._database = database
        self.sessions = SqliteSessions(database, tenant)
        self.ledger = SqliteLedger(database, tenant)
        self.agents = SqliteAgents(database, tenant)
        self.policies = SqlitePolicies(database, tenant)
        self.secrets = SqliteSecrets(database, tenant)
        self.audit = SqliteAudit(database, tenant)
        self.sandboxes = SqliteSandboxes(database, tenant)
        self.placeholders = SqlitePlaceholders(database, tenant)
        self.webhooks = SqliteWebhooks(database, tenant)
        self.runs = SqliteRuns(database, tenant)
        self.processes = SqliteProcesses(database, tenant)
        self.models = SqliteModels(database, tenant)
        self.snapshots = SqliteSnapshots(database, tenant)
        self.notices = SqliteNotices(database, tenant)
        self.control_secrets = control_secrets
        self.leases = SqliteLeases(database, tenant, control_secrets)

    async def close(self) -> None:
        """Finish what is under way and release the file. Idempotent."""
        await self._database.close()


async def open_sqlite_store(
    path: Path, *, control_key: bytes, tenant: str = DEFAULT_TENANT
) -> SqliteStore:
    """Open the file (made where it is missing), bring its schema up to date, open its secrets.

    ConfigError: see `Database.open`; or the control key is not the one of this file.
    """
    database = await Database.open(path, MIGRATIONS)
    try:
        secrets = await SqliteControlSecrets.open(database, tenant, control_key)
    except BaseException:
        await database.close()
        raise
    return SqliteStore(database, tenant, secrets)

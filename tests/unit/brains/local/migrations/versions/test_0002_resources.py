"""A file of the first revision keeps its rows."""

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from handiwork.brains.local import migrations
from handiwork.brains.local.keys import Kind, kept_keys
from handiwork.store.database import Database

REVISIONS = Path(migrations.__file__).parent / "versions"


async def test_keys_of_an_older_file_stay_good(tmp_path):
    path = tmp_path / "brain.db"
    _make_first_revision(path)
    database = await Database.open(path, REVISIONS)
    try:
        callers = await database.read(kept_keys)
    finally:
        await database.close()
    assert callers["d"].kind is Kind.API


def _make_first_revision(path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(REVISIONS.parent))
    config.set_main_option("version_locations", str(REVISIONS))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        context = EnvironmentContext(
            config, script, fn=lambda revision, _context: script._upgrade_revs("0001", revision)
        )
        context.configure(connection=connection)
        context.run_migrations()
        connection.execute(
            text("INSERT INTO keys (digest, tenant_id, kind) VALUES ('d', 'default', 'api')")
        )
    engine.dispose()

"""The revisions make exactly the tables that the code describes."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from handiwork.brains.local import migrations
from handiwork.brains.local.tables import METADATA
from handiwork.store.database import Database


async def test_the_schema_is_the_tables(tmp_path):
    database = await Database.open(
        tmp_path / "brain.db", Path(migrations.__file__).parent / "versions"
    )
    try:
        differences = await database.write(
            lambda connection: compare_metadata(MigrationContext.configure(connection), METADATA)
        )
    finally:
        await database.close()
    assert differences == []

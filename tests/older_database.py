"""A control plane's database as an older version of the program left it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from handiwork.store.sqlite import MIGRATIONS


def make_older(path: Path, revision: str, rows: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Make the file at a revision, with rows (table, columns) in it."""
    script = ScriptDirectory(str(MIGRATIONS.parent), version_locations=[str(MIGRATIONS)])
    engine = create_engine(f"sqlite:///{path}")

    def steps(current: Any, _context: Any) -> Any:
        return script._upgrade_revs(revision, current)

    with engine.begin() as connection, EnvironmentContext(Config(), script, fn=steps) as context:
        context.configure(connection=connection)
        context.run_migrations()
        for table, columns in rows:
            names = ", ".join(columns)
            values = ", ".join(f":{name}" for name in columns)
            statement = f"INSERT INTO {table} ({names}) VALUES ({values})"
            connection.execute(text(statement), columns)
    engine.dispose()

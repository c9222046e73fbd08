"""The schema: what the migrations make, tenants first, times that come back."""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st

from handiwork.store.database import Database
from handiwork.store.sqlite import MIGRATIONS
from handiwork.store.tables import metadata, microseconds, moment


async def test_the_migrations_make_the_tables_of_the_schema(tmp_path: Path) -> None:
    database = await Database.open(tmp_path / "c.db", MIGRATIONS)
    try:
        difference = await database.read(
            lambda at: compare_metadata(MigrationContext.configure(at), metadata)
        )
        assert difference == []
    finally:
        await database.close()


def test_every_table_begins_with_the_tenant() -> None:
    for table in metadata.sorted_tables:
        first = next(iter(table.primary_key.columns))
        assert first.name == "tenant", table.name


@given(st.datetimes(timezones=st.timezones()))
def test_a_time_comes_back_to_the_microsecond(at: datetime) -> None:
    assert moment(microseconds(at)) == at.astimezone(UTC)


def test_order_is_that_of_time_not_of_zones() -> None:
    early = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    late = datetime(2026, 1, 1, 8, tzinfo=UTC)
    assert microseconds(early) < microseconds(late)


def test_a_time_without_zone_is_refused() -> None:
    with pytest.raises(TypeError):
        microseconds(datetime(2026, 1, 1))

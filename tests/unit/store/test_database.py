"""The shared SQLite file: durable writes in order, consistent reads, clear refusals."""

import asyncio
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from handiwork.model.errors import ConfigError
from handiwork.store.database import Database

REVISION = '''"""{name}"""
from alembic import op
revision = "{name}"
down_revision = {down!r}
def upgrade():
    op.execute("""{sql}""")
def downgrade():
    raise NotImplementedError
'''


def revise(folder: Path, name: str, down: str | None, sql: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(REVISION.format(name=name, down=down, sql=sql))


@pytest.fixture
def revisions(tmp_path):
    folder = tmp_path / "versions"
    revise(folder, "0001", None, "CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
    return folder


@pytest.fixture
async def database(tmp_path, revisions):
    opened = await Database.open(tmp_path / "a.db", revisions)
    yield opened
    await opened.close()


def add(body: str | None):
    def change(connection: Connection) -> int:
        done = connection.execute(text("INSERT INTO note (body) VALUES (:body)"), {"body": body})
        return int(done.lastrowid)

    return change


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def bodies(connection: Connection) -> list[str]:
    return [row.body for row in connection.execute(text("SELECT body FROM note ORDER BY id"))]


async def test_what_was_written_is_read(database):
    assert await database.write(add("one")) == 1
    assert await database.read(bodies) == ["one"]


async def test_writes_take_effect_in_the_order_of_the_calls(database):
    await asyncio.wait_for(
        asyncio.gather(*(database.write(add(str(index))) for index in range(300))), 30
    )
    assert await database.read(bodies) == [str(index) for index in range(300)]


async def test_a_failed_write_undoes_only_itself_in_a_shared_commit(database):
    def half(connection: Connection) -> None:
        add("half")(connection)
        raise ValueError("no")

    done = await asyncio.gather(
        *(database.write(each) for each in (add("a"), half, add(None), add("b"))),
        return_exceptions=True,
    )
    assert isinstance(done[1], ValueError)
    assert "NOT NULL" in str(done[2])
    assert await database.read(bodies) == ["a", "b"]


async def test_a_lone_failed_write_leaves_nothing(database):
    def half(connection: Connection) -> None:
        add("half")(connection)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await database.write(half)
    assert await database.read(bodies) == []


async def test_a_read_cannot_write(database):
    with pytest.raises(Exception, match="readonly"):
        await database.read(add("x"))


async def test_a_cancelled_caller_does_not_undo_its_write(database):
    task = asyncio.ensure_future(database.write(add("kept")))
    await asyncio.sleep(0)
    task.cancel()
    await database.write(add("next"))
    assert await database.read(bodies) == ["kept", "next"]


async def test_close_finishes_what_was_handed_over_and_then_refuses(tmp_path, revisions):
    opened = await Database.open(tmp_path / "b.db", revisions)
    waiting = asyncio.ensure_future(opened.write(add("last")))
    await asyncio.sleep(0)
    await opened.close()
    await opened.close()
    assert await waiting == 1
    with pytest.raises(RuntimeError, match="closed"):
        await opened.write(add("late"))


async def test_the_file_is_ours_alone_and_durable(database, tmp_path):
    path = tmp_path / "a.db"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    modes = await database.write(
        lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in PRAGMAS]
    )
    assert modes == ["wal", 2, 1]


PRAGMAS = ("journal_mode", "synchronous", "foreign_keys")


async def test_a_later_version_migrates_and_keeps_the_data(tmp_path, revisions):
    path = tmp_path / "c.db"
    first = await Database.open(path, revisions)
    await first.write(add("old"))
    await first.close()
    revise(revisions, "0002", "0001", "ALTER TABLE note ADD COLUMN more TEXT DEFAULT 'm'")
    second = await Database.open(path, revisions)
    rows = await second.read(lambda c: c.execute(text("SELECT body, more FROM note")).all())
    await second.close()
    assert [tuple(row) for row in rows] == [("old", "m")]


async def test_a_broken_migration_leaves_the_schema_as_it_was(tmp_path, revisions):
    path = tmp_path / "d.db"
    await (await Database.open(path, revisions)).close()
    revise(revisions, "0002", "0001", "CREATE TABLE other (id INTEGER)")
    revise(revisions, "0003", "0002", "THIS IS NOT SQL")
    with pytest.raises(ConfigError, match=r"d\.db"):
        await Database.open(path, revisions)
    with sqlite3.connect(path) as plain:
        names = {row[0] for row in plain.execute("SELECT name FROM sqlite_master")}
    plain.close()
    assert "other" not in names


async def test_a_newer_schema_is_refused(tmp_path, revisions):
    path = tmp_path / "e.db"
    revise(revisions, "0002", "0001", "CREATE TABLE other (id INTEGER)")
    await (await Database.open(path, revisions)).close()
    (revisions / "0002.py").unlink()
    with pytest.raises(ConfigError, match="newer") as refused:
        await Database.open(path, revisions)
    assert "\n" not in str(refused.value)


async def test_a_second_process_is_refused(database, tmp_path, revisions):
    program = (
        "import asyncio, sys, pathlib\n"
        "from handiwork.store.database import Database\n"
        "asyncio.run(Database.open(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))\n"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, str(tmp_path / "a.db"), str(revisions)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert "in use by another process" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("content", [b"not a database, but long enough to be looked at" * 40])
async def test_a_foreign_file_is_refused_and_kept(tmp_path, revisions, content):
    path = tmp_path / "f.db"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="not a SQLite database"):
        await Database.open(path, revisions)
    assert path.read_bytes() == content


async def test_a_missing_folder_is_refused(tmp_path, revisions):
    with pytest.raises(ConfigError, match="cannot be opened for writing") as refused:
        await Database.open(tmp_path / "no" / "g.db", revisions)
    assert "\n" not in str(refused.value)


async def test_a_file_that_another_program_locks_is_refused(tmp_path, revisions):
    path = tmp_path / "h.db"
    with sqlite3.connect(path, isolation_level=None) as plain:
        plain.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ConfigError, match="locked"):
            await Database.open(path, revisions)
        plain.execute("ROLLBACK")
    plain.close()


async def test_no_thread_or_descriptor_is_left_behind(tmp_path, revisions):
    path = tmp_path / "i.db"
    await (await Database.open(path, revisions)).close()
    before = descriptors()
    opened = await Database.open(path, revisions)
    await opened.write(add("x"))
    await opened.read(bodies)
    await opened.close()
    assert descriptors() == before

"""One SQLite file: one thread writes, a few read, the event loop waits for neither.

Generic: the owner brings its schema as a folder of Alembic revisions. A write is a function of a
`Connection`; it runs alone in one transaction and is on disk (`synchronous=FULL`) when `write`
returns. Functions that wait at the same time share one commit, each under its own savepoint, so
one that fails undoes only itself.
"""

import asyncio
import fcntl
import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import QueuePool

from handiwork.model.errors import ConfigError

READERS = 2
PENDING_WRITES = 1024
"""Writes that may wait; the next caller waits for a place."""
COMMIT_GROUP = 64
"""Writes that share one commit at most."""
BUSY_MILLISECONDS = 2000

T = TypeVar("T")

_PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=FULL",
    "foreign_keys=ON",
    f"busy_timeout={BUSY_MILLISECONDS}",
    "temp_store=MEMORY",
)


@dataclass(slots=True)
class _Job:
    """One write on its way: what to do, who waits, and how it ended."""

    change: Callable[[Connection], Any]
    done: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None


class Database:
    """An open file. Use from one event loop; `open` makes it, `close` ends its threads."""

    def __init__(self, engine: Engine, lock: int, readers: int) -> None:
        self._engine = engine
        self._lock = lock
        self._loop = asyncio.get_running_loop()
        self._places = asyncio.Semaphore(PENDING_WRITES)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write_until_closed, name="database-writer")
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="database-reader")
        self._closed = False
        self._writer.start()

    @classmethod
    async def open(cls, path: Path, revisions: Path, *, readers: int = READERS) -> Self:
        """Create the file where it is missing (mode 0600), bring its schema up to date, start.

        `revisions` is a folder of Alembic revision files. ConfigError, one line: not writable, in
        use by another process, not a database, or written by a newer version of this program.
        """
        engine, lock = await asyncio.to_thread(_prepare, path, revisions, readers)
        return cls(engine, lock, readers)

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Run the function in a transaction of its own and return its result once it is on disk.

        Writes take effect in the order of the calls. What the function raises undoes it and is
        raised here. Cancelling the caller does not undo a write that was handed over.
        """
        await self._places.acquire()
        if self._closed:
            self._places.release()
            raise RuntimeError("the database is closed")
        job = _Job(change, self._loop.create_future())
        self._jobs.put(job)
        result: T = await job.done
        return result

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Run the function on a consistent view of what is committed; it cannot write."""
        return await self._loop.run_in_executor(self._readers, self._read, query)

    async def close(self) -> None:
        """Finish what was handed over, end the threads, fold the log into the file. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._writer.join()
        self._readers.shutdown()
        self._engine.dispose()
        os.close(self._lock)

    def _read(self, query: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            connection.exec_driver_sql("PRAGMA query_only=ON")
            try:
                return query(connection)
            finally:
                connection.rollback()
                connection.exec_driver_sql("PRAGMA query_only=OFF")

    def _write_until_closed(self) -> None:
        with self._engine.connect() as connection:
            open_ended = True
            while open_ended:
                group, open_ended = self._next_group()
                if group:
                    _commit(connection, group)
                    self._loop.call_soon_threadsafe(self._deliver, group)

    def _next_group(self) -> tuple[list[_Job], bool]:
        """Wait for a job and take those that stand behind it; False when the end was asked for."""
        group: list[_Job] = []
        job = self._jobs.get()
        while job is not None:
            group.append(job)
            if len(group) == COMMIT_GROUP:
                return group, True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return group, True
        return group, False

    def _deliver(self, group: list[_Job]) -> None:
        for job in group:
            self._places.release()
            if job.done.done():
                continue
            if job.error is None:
                job.done.set_result(job.result)
            else:
                job.done.set_exception(job.error)


def _commit(connection: Connection, group: list[_Job]) -> None:
    """Run the group in one transaction; when the commit itself fails, every job failed."""
    try:
        with connection.begin():
            if len(group) == 1:
                group[0].result = group[0].change(connection)
                return
            for job in group:
                _run_under_savepoint(connection, job)
    except BaseException as error:  # noqa: BLE001  handed to the callers, who wait for it
        for job in group:
            job.error = job.error or error


def _run_under_savepoint(connection: Connection, job: _Job) -> None:
    connection.exec_driver_sql("SAVEPOINT job")
    try:
        job.result = job.change(connection)
    except BaseException as error:  # noqa: BLE001  handed to the caller, who waits for it
        job.error = error
        connection.exec_driver_sql("ROLLBACK TO job")
    connection.exec_driver_sql("RELEASE job")


def _prepare(path: Path, revisions: Path, readers: int) -> tuple[Engine, int]:
    """Take the file for this process and migrate it. Returns the engine and the lock's descriptor."""
    lock = _claim(path)
    engine = _engine(path, readers)
    try:
        with engine.connect() as connection, connection.begin():
            _migrate(connection, path, revisions)
    except DatabaseError as error:
        _give_up(engine, lock)
        raise ConfigError(f"{path}: {_reason(error.orig)}") from None
    except BaseException:
        _give_up(engine, lock)
        raise
    return engine, lock


def _give_up(engine: Engine, lock: int) -> None:
    engine.dispose()
    os.close(lock)


def _claim(path: Path) -> int:
    """Create the file and hold its lock: a database has one process that writes."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags, 0o600))
        lock = os.open(path.with_name(path.name + ".lock"), flags, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{path}: the database cannot be opened for writing: {error.strerror};"
            " check the folder, its owner and its mode"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise ConfigError(
            f"{path}: the database is in use by another process; stop that one first"
        ) from None
    return lock


def _engine(path: Path, readers: int) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=readers + 1,
        max_overflow=0,
        hide_parameters=True,
        connect_args={"check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own transactions begin too late for DDL; we say BEGIN ourselves.
        connection.isolation_level = None
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    return engine


def _migrate(connection: Connection, path: Path, revisions: Path) -> None:
    """Run the revisions that are missing, all in the caller's transaction."""
    script = ScriptDirectory(str(revisions.parent), version_locations=[str(revisions)])
    known = {revision.revision for revision in script.walk_revisions()}
    present = set(MigrationContext.configure(connection).get_current_heads())
    if present - known:
        raise ConfigError(
            f"{path}: the database has schema {', '.join(sorted(present - known))}, which this"
            " version does not know; it was written by a newer one: install that version"
        )
    if present == set(script.get_heads()):
        return

    def missing(current: Any, _context: MigrationContext) -> Any:
        return script._upgrade_revs("head", current)  # what `alembic upgrade head` runs

    with EnvironmentContext(Config(), script, fn=missing) as environment:
        environment.configure(connection=connection)
        environment.run_migrations()


def _reason(error: BaseException | None) -> str:
    """Say in one line what SQLite refused."""
    text = str(error)
    if "locked" in text:
        return "the database is locked by another program; close it and start again"
    if "not a database" in text:
        return "the file is not a SQLite database; name another file or move this one away"
    if "readonly" in text:
        return "the database is read-only for this user; check its owner and mode"
    return f"the database cannot be opened: {text}"

"""The local brain's process: `python -m handiwork.brains.local`, started by the supervisor.

The first line of stdin is its bootstrap, one JSON object: `database` (path), `listen_fd` (a TCP
socket that listens already), `api_key`, `environments` (each `id`, `name`, `key`), `seal_key`
(base64, optional: the public key that credentials are sealed to), `models` (each `settings` and
`key`), `exit_fd` (optional: a socket of the egress proxy, for webhooks), `webhook_hosts` (hosts that
webhooks go to directly). Later lines replace all of the models: `{"models": […]}`. One line
`{"ready": true}` on stdout says that it serves. It ends with 0 on SIGTERM or when stdin closes,
with 2 and one line on stderr when it cannot start, with 1 when a write was lost.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import uvloop
from msgspec import Meta
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from handiwork import process
from handiwork.brains.local import migrations
from handiwork.brains.local.callbacks import Callbacks
from handiwork.brains.local.catalog import Catalog, ensure_environments
from handiwork.brains.local.clock import Clock, StrictClock, ids
from handiwork.brains.local.environment_keys import EnvironmentKeys
from handiwork.brains.local.journal import Journal
from handiwork.brains.local.keys import Keyring, kept_keys, replace_keys
from handiwork.brains.local.loop import Loop
from handiwork.brains.local.memories import Memories
from handiwork.brains.local.memory_versions import MemoryVersions
from handiwork.brains.local.providers.catalogue import Models
from handiwork.brains.local.retries import Retries
from handiwork.brains.local.routes_sessions import stop_streams
from handiwork.brains.local.server import Server, application
from handiwork.brains.local.services import Services
from handiwork.brains.local.skills import Skills
from handiwork.brains.local.vaults import Vaults
from handiwork.brains.local.webhooks import Webhooks
from handiwork.brains.local.work import WorkQueues
from handiwork.model.errors import ConfigError
from handiwork.model.language_model import KeyedModel
from handiwork.observe import log
from handiwork.store.database import Database

REVISIONS = Path(migrations.__file__).parent / "versions"
MAX_BOOTSTRAP_BYTES = 1024 * 1024
MAX_CHANGES = 64
LOST_WRITE = 1
REFUSED = 2

Key = Annotated[str, Meta(min_length=16, max_length=512)]


class Environment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An environment that is to exist, and the key its hands will show."""

    id: Annotated[str, Meta(pattern=r"^env_[A-Za-z0-9]{1,64}$")]
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    key: Key


class Bootstrap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the process is told at its start."""

    database: str
    listen_fd: int
    api_key: Key
    environments: list[Environment] = []
    seal_key: Annotated[bytes, Meta(min_length=32, max_length=32)] | None = None
    models: list[KeyedModel] = []
    exit_fd: int | None = None
    webhook_hosts: list[str] = []


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a later line changes: all models are replaced by these."""

    models: list[KeyedModel]


def read_bootstrap(descriptor: int) -> Bootstrap:
    """Read the first line; ConfigError, without what stood in it, when it is not one."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(descriptor, 1)
        if not byte or len(line) >= MAX_BOOTSTRAP_BYTES:
            raise ConfigError("the bootstrap is missing: one line of JSON on stdin")
        line += byte
    try:
        return msgspec.json.decode(bytes(line), type=Bootstrap)
    except msgspec.ValidationError as error:
        raise ConfigError(f"the bootstrap is not valid: {error}") from None
    except msgspec.DecodeError:
        raise ConfigError("the bootstrap is not valid JSON") from None


def listener(descriptor: int) -> socket.socket:
    """Take over the listening socket; ConfigError when the descriptor is not one."""
    try:
        listening = socket.socket(fileno=descriptor)
    except OSError as error:
        raise ConfigError(f"listen_fd {descriptor} is not a socket: {error.strerror}") from None
    try:
        accepts = listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if not accepts or listening.family not in (socket.AF_INET, socket.AF_INET6):
            raise ConfigError(f"listen_fd {descriptor} is not a TCP socket that listens")
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise ConfigError(f"listen_fd {descriptor} cannot be used: {error.strerror}") from None
    return listening


def _now() -> datetime:
    return datetime.now(UTC)  # noqa: TID251  the one place where this process reads the clock


class _Stop:
    """Why and when the process ends."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.told: asyncio.Queue[list[KeyedModel]] = asyncio.Queue(MAX_CHANGES)
        self._line = bytearray()
        self.status = 0

    def ask(self) -> None:
        self.asked.set()

    def lost_write(self, error: BaseException) -> None:
        log.get("brain").error("lost_write", error=f"{type(error).__name__}: {error}"[:300])
        self.status = LOST_WRITE
        self.asked.set()

    def watch(self, descriptor: int) -> None:
        """Stop on SIGTERM, SIGINT and the end of stdin."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.ask)

        def readable() -> None:
            data = os.read(descriptor, 65536)
            if data:
                self.hear(data)
            else:
                loop.remove_reader(descriptor)
                self.ask()

        try:
            loop.add_reader(descriptor, readable)
        except PermissionError:
            raise ConfigError("stdin must be a pipe that stays open while the brain runs") from None

    def hear(self, data: bytes) -> None:
        """Take what came on stdin; a line that is not valid changes nothing, and is told."""
        *lines, rest = bytes(self._line + data).split(b"\n")
        self._line = bytearray(rest)
        if len(rest) > MAX_BOOTSTRAP_BYTES:
            self._line.clear()
            log.get("brain").error("change_too_long")
        for line in lines:
            try:
                self.told.put_nowait(msgspec.json.decode(line, type=Change).models)
            except (msgspec.DecodeError, asyncio.QueueFull) as error:
                log.get("brain").error("change_refused", error=type(error).__name__)


async def _replace_models(models: Models, told: asyncio.Queue[list[KeyedModel]]) -> None:
    while True:
        await models.replace(await told.get())


async def _keyring(database: Database, bootstrap: Bootstrap, clock: Clock) -> Keyring:
    def prepare(connection: Connection) -> Keyring:
        wanted = bootstrap.environments
        ensure_environments(connection, [(each.id, each.name) for each in wanted], clock)
        replace_keys(connection, bootstrap.api_key, [(each.id, each.key) for each in wanted])
        return Keyring(bootstrap.api_key, kept_keys(connection))

    try:
        return await database.write(prepare)
    except IntegrityError:
        raise ConfigError(
            "the bootstrap names an environment or a key twice, or a name that another"
            " environment has"
        ) from None


async def _serve(
    database: Database, bootstrap: Bootstrap, listening: socket.socket, stop: _Stop
) -> None:
    clock, new_id = StrictClock(_now), ids(os.urandom)
    keyring = await _keyring(database, bootstrap, clock)
    models = Models()
    await models.replace(bootstrap.models)
    work = WorkQueues(database, clock, new_id)
    webhooks = Webhooks(database, clock, new_id, os.urandom, _callbacks(bootstrap))
    journal = Journal(database, work, clock, new_id, stop.lost_write, webhooks)
    async with asyncio.TaskGroup() as tasks:
        loop = Loop(journal, models, new_id, tasks, Retries(chance=random.SystemRandom().random))
        catalog = Catalog(database, models, clock, new_id)
        services = Services(
            database=database,
            catalog=catalog,
            work=work,
            journal=journal,
            loop=loop,
            keyring=keyring,
            webhooks=webhooks,
            clock=clock,
            new_id=new_id,
            environment_keys=EnvironmentKeys(database, catalog, keyring, clock, new_id, os.urandom),
            memories=Memories(database, clock, new_id),
            memory_versions=MemoryVersions(database, clock),
            skills=Skills(database, clock, new_id),
            vaults=Vaults(database, clock, new_id, seal_key=bootstrap.seal_key, entropy=os.urandom),
        )
        await work.load()
        await webhooks.load()
        for session in await journal.load_open():
            loop.advance(session)
        server = Server(application(services), _tell_ready)
        leases = tasks.create_task(work.watch_leases())
        delivering = tasks.create_task(webhooks.run())
        changes = tasks.create_task(_replace_models(models, stop.told))
        serving = tasks.create_task(server.serve(sockets=[listening]))
        stopping = tasks.create_task(stop.asked.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stop_streams(services)
        server.should_exit = True
        await serving
        loop.close()
        leases.cancel()
        delivering.cancel()
        changes.cancel()
        stopping.cancel()
    await models.close()


def _callbacks(bootstrap: Bootstrap) -> Callbacks:
    way = None if bootstrap.exit_fd is None else f"/proc/self/fd/{bootstrap.exit_fd}"
    return Callbacks(way, frozenset(bootstrap.webhook_hosts))


def _tell_ready() -> None:
    os.write(1, b'{"ready": true}\n')


async def _run(bootstrap: Bootstrap, listening: socket.socket) -> int:
    stop = _Stop()
    stop.watch(0)
    database = await Database.open(Path(bootstrap.database), REVISIONS)
    try:
        await _serve(database, bootstrap, listening, stop)
    finally:
        await database.close()
    return stop.status


def main() -> int:
    """Run until told to stop; the exit status."""
    parser = argparse.ArgumentParser(prog="handiwork.brains.local", description=__doc__)
    parser.add_argument("--user", type=int, metavar="UID", help="become this host id (needs root)")
    parser.add_argument("--home", default="", metavar="DIR", help="see DIR at process.HOME then")
    parser.add_argument("--log-level", choices=tuple(log.LEVELS), default="info")
    parser.add_argument("--log-format", choices=("json", "text"), default="json")
    options = parser.parse_args()
    log.set_up(level=options.log_level, format=options.log_format, process="local-brain")
    try:
        if options.user is not None:
            process.become(options.user, options.home)
        process.harden()
        bootstrap = read_bootstrap(0)
        with contextlib.closing(listener(bootstrap.listen_fd)) as listening:
            return uvloop.run(_run(bootstrap, listening))
    except (ConfigError, OSError) as error:
        sys.stderr.write(f"local brain: {error}\n")
        return REFUSED


if __name__ == "__main__":
    sys.exit(main())

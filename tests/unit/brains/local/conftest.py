"""The local brain's parts in this process: a real database, a clock and ids that count."""

import asyncio
import itertools
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from handiwork.brains.local import migrations
from handiwork.brains.local.callbacks import Callbacks
from handiwork.brains.local.catalog import Catalog, ensure_environments
from handiwork.brains.local.clock import StrictClock
from handiwork.brains.local.environment_keys import EnvironmentKeys
from handiwork.brains.local.gate import BETA
from handiwork.brains.local.journal import Journal
from handiwork.brains.local.keys import Caller, Keyring, Kind, digest
from handiwork.brains.local.loop import Loop
from handiwork.brains.local.memories import Memories
from handiwork.brains.local.memory_versions import MemoryVersions
from handiwork.brains.local.scripted import ScriptedModel
from handiwork.brains.local.server import application
from handiwork.brains.local.services import Services
from handiwork.brains.local.session import Body, Progress, Session
from handiwork.brains.local.shapes import AgentCreate, Toolset
from handiwork.brains.local.skills import Skills
from handiwork.brains.local.turn import Turn
from handiwork.brains.local.vaults import Vaults
from handiwork.brains.local.webhooks import Webhooks
from handiwork.brains.local.work import WorkQueues
from handiwork.store.database import Database

REVISIONS = Path(migrations.__file__).parent / "versions"
PRIVATE_KEY = X25519PrivateKey.from_private_bytes(b"p" * 32)
SEAL_KEY = PRIVATE_KEY.public_key().public_bytes_raw()
API_KEY = "sk-ant-api03-for-tests-only"
ENVIRONMENT_KEY = "sk-ant-oat01-for-tests-only"


class Hand:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def hand():
    return Hand()


@pytest.fixture
def new_id():
    counter = itertools.count(1)
    return lambda prefix: f"{prefix}_{next(counter):04}"


@pytest.fixture
async def database(tmp_path):
    opened = await Database.open(tmp_path / "brain.db", REVISIONS)
    yield opened
    await opened.close()


@pytest.fixture
def lost():
    return []


@pytest.fixture
async def services(database, hand, new_id, lost):
    clock = StrictClock(hand)
    models = {"scripted": ScriptedModel()}
    work = WorkQueues(database, clock, new_id)
    webhooks = Webhooks(
        database, clock, new_id, os.urandom, Callbacks("/nowhere", frozenset({"127.0.0.1"}))
    )
    journal = Journal(database, work, clock, new_id, lost.append, webhooks)
    async with asyncio.TaskGroup() as tasks:
        loop = Loop(journal, models, new_id, tasks)
        catalog = Catalog(database, models, clock, new_id)
        callers = {
            digest(API_KEY): Caller(Kind.API),
            digest(ENVIRONMENT_KEY): Caller(Kind.ENVIRONMENT, "env_1"),
        }
        keyring = Keyring(API_KEY, callers)
        yield Services(
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
            vaults=Vaults(database, clock, new_id, seal_key=SEAL_KEY, entropy=os.urandom),
        )
        loop.close()


@pytest.fixture
def make_session(services):
    """Return a maker of sessions whose agent plays a script with the stock tools."""

    async def make(system: str) -> Session:
        agent = await services.catalog.create_agent(
            AgentCreate(name="a", model="scripted", system=system, tools=[Toolset()])
        )
        now = services.clock()
        session = Session(
            body=Body(
                id=services.new_id("sesn"),
                environment_id="env_1",
                agent=await services.catalog.snapshot(agent["id"]),
                title=None,
                metadata={},
                created_at=now,
            ),
            progress=Progress(turn=Turn(), updated_at=now),
            next_position=0,
        )
        await services.journal.create(session)
        return session

    return make


@pytest.fixture
def settle():
    """Return a wait for a condition that other tasks bring about."""

    async def wait(condition) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    return wait


class Http:
    """Requests through the gate and the routes, without a socket."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self._client = client

    async def __call__(
        self, method: str, path: str, body=None, *, key: str = API_KEY, headers=None, **more
    ):
        sent = {"authorization": f"Bearer {key}", "anthropic-beta": BETA, **(headers or {})}
        return await self._client.request(method, path, json=body, headers=sent, **more)


@pytest.fixture
async def http(services):
    await services.database.write(
        lambda connection: ensure_environments(
            connection, [("env_1", "one"), ("env_2", "two")], services.clock
        )
    )
    transport = httpx2.ASGITransport(application(services))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield Http(client)


@pytest.fixture
def environment_key():
    return ENVIRONMENT_KEY


@pytest.fixture
def private_key():
    """What opens the values of credentials: the other half of the server's key."""
    return PRIVATE_KEY

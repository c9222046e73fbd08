"""What the routes share, and how they answer."""

from typing import Any, TypeVar

import msgspec
from litestar import Request, Response

from handiwork.brains.local.catalog import Catalog
from handiwork.brains.local.clock import Clock, NewId
from handiwork.brains.local.environment_keys import EnvironmentKeys
from handiwork.brains.local.errors import WireError, missing
from handiwork.brains.local.journal import Journal
from handiwork.brains.local.keys import Caller, Keyring, Kind
from handiwork.brains.local.loop import Loop
from handiwork.brains.local.memories import Memories
from handiwork.brains.local.memory_versions import MemoryVersions
from handiwork.brains.local.paging import Query
from handiwork.brains.local.session import Session
from handiwork.brains.local.shapes import decode
from handiwork.brains.local.skills import Skills
from handiwork.brains.local.vaults import Vaults
from handiwork.brains.local.webhooks import Webhooks
from handiwork.brains.local.work import WorkQueues
from handiwork.store.database import Database

T = TypeVar("T")
AnyRequest = Request[Any, Any, Any]
Answer = Response[bytes]

PING_SECONDS = 15.0


class Services(msgspec.Struct, frozen=True):
    """Everything behind the routes."""

    database: Database
    catalog: Catalog
    work: WorkQueues
    journal: Journal
    loop: Loop
    keyring: Keyring
    clock: Clock
    new_id: NewId
    memories: Memories
    memory_versions: MemoryVersions
    skills: Skills
    vaults: Vaults
    environment_keys: EnvironmentKeys
    webhooks: Webhooks


def services_of(request: AnyRequest) -> Services:
    """Return the services of the application."""
    services: Services = request.app.state.services
    return services


def caller_of(request: AnyRequest, *kinds: Kind) -> Caller:
    """Return who asks; 403 when this kind of key may not."""
    caller: Caller = request.scope["state"]["caller"]
    if caller.kind not in kinds:
        raise WireError(403, f"this call does not take the {caller.kind} key")
    return caller


def name_of(request: AnyRequest, name: str) -> str:
    """Return a part of the path."""
    return str(request.path_params[name])


def query_of(request: AnyRequest) -> Query:
    """Return the query's pairs in order."""
    return list(request.query_params.multi_items())


async def body_of(request: AnyRequest, shape: type[T]) -> T:
    """Return the checked body."""
    return decode(await request.body(), shape)


def answer(value: Any) -> Answer:
    """Return a value as JSON."""
    return Response(msgspec.json.encode(value), media_type="application/json", status_code=200)


async def session_of(request: AnyRequest, *kinds: Kind) -> Session:
    """Return the session of the path, if the key may see it; 404 otherwise.

    A key of an environment sees its sessions; a sessions key sees its own while its lease lasts.
    """
    caller = caller_of(request, *kinds)
    session_id = name_of(request, "session_id")
    if caller.kind is Kind.SESSIONS:
        held = await held_session(request, caller)
        if held.id != session_id:
            raise missing("session", session_id)
        return held
    session = await services_of(request).journal.get(session_id)
    if caller.kind is Kind.ENVIRONMENT and session.body.environment_id != caller.environment_id:
        raise missing("session", session_id)
    return session


async def held_session(request: AnyRequest, caller: Caller) -> Session:
    """Return the session that a sessions key was made for; 403 once its lease was lost."""
    services = services_of(request)
    item = services.work.locate(caller.work_id or "")
    if item.epoch != caller.epoch:
        raise WireError(403, "the lease of this key's work item was lost")
    return await services.journal.get(item.subject_id)

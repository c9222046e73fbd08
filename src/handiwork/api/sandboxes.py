"""`/api/sandboxes`: make, list, look, sleep, wake, delete."""

from collections.abc import Mapping
from typing import Annotated

from litestar import Router, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from handiwork.api.control import Injected
from handiwork.model.errors import ConfigError, ConflictError
from handiwork.model.sandbox import TIERS, ProcessTable, SandboxRecord, SandboxState, limits_of
from handiwork.model.wire import Listing, SandboxBody
from handiwork.sessions.sandbox_request import SandboxRequest

MAX_ENTRIES = 256
MAX_ENTRY_CHARS = 32 * 1024


@post("/")
async def create_sandbox(control: Injected, data: JSONBody[SandboxBody]) -> SandboxRecord:
    """Make a sandbox and return when commands can run in it."""
    if data.tier and data.tier not in TIERS:
        raise ConfigError(f"tier: {data.tier[:80]!r} is no tier; use one of {', '.join(TIERS)}")
    check_entries("env", data.env)
    check_entries("metadata", data.metadata)
    request = SandboxRequest(
        tier=data.tier,
        image=data.image,
        limits=limits_of(data.size, data.limits),
        policy=data.policy,
        env=data.env,
        metadata=data.metadata,
    )
    return await control.sandboxes.create(request)


@get("/")
async def list_sandboxes(
    control: Injected,
    include_gone: FromQuery[bool] = False,
    limit: Annotated[int, QueryParameter(ge=1, le=1000)] = 100,
) -> Listing[SandboxRecord]:
    """List sandboxes, newest first."""
    found = await control.store.sandboxes.list(include_gone=include_gone, limit=limit)
    return Listing(data=tuple(found))


@get("/{sandbox_id:str}")
async def get_sandbox(control: Injected, sandbox_id: FromPath[str]) -> SandboxRecord:
    """Tell of one sandbox."""
    return await control.store.sandboxes.get(sandbox_id)


@get("/{sandbox_id:str}/ps")
async def list_running(control: Injected, sandbox_id: FromPath[str]) -> ProcessTable:
    """Tell what runs inside, what it uses, and where it listens; one that sleeps is not woken.

    One that stands still goes on for that moment.
    """
    record = await control.store.sandboxes.get(sandbox_id)
    if record.state is SandboxState.SLEEPING:
        raise ConflictError(f"the sandbox {sandbox_id} sleeps: nothing runs until it wakes")
    async with control.sandboxes.lend(sandbox_id) as sandbox:
        return await sandbox.ps()


@delete("/{sandbox_id:str}", status_code=204)
async def close_sandbox(control: Injected, sandbox_id: FromPath[str]) -> None:
    """End a sandbox and delete its files."""
    await control.sandboxes.close(sandbox_id)


@post("/{sandbox_id:str}/sleep", status_code=200)
async def sleep_sandbox(control: Injected, sandbox_id: FromPath[str]) -> SandboxRecord:
    """End a sandbox's processes and keep its files."""
    return await control.sandboxes.sleep(sandbox_id)


@post("/{sandbox_id:str}/wake", status_code=200)
async def wake_sandbox(control: Injected, sandbox_id: FromPath[str]) -> SandboxRecord:
    """Start a sleeping sandbox again, under today's policy."""
    return await control.sandboxes.wake(sandbox_id)


def check_entries(field: str, entries: Mapping[str, str]) -> None:
    """ConfigError unless each entry can be a variable of a process."""
    if len(entries) > MAX_ENTRIES:
        raise ConfigError(f"{field}: more than {MAX_ENTRIES} entries")
    for name, value in entries.items():
        if not name or "=" in name or "\0" in name + value:
            raise ConfigError(f"{field}: {name[:80]!r} needs a name without '=' and no NUL")
        if len(name) + len(value) > MAX_ENTRY_CHARS:
            raise ConfigError(f"{field}: {name[:80]!r} is longer than {MAX_ENTRY_CHARS} characters")


routes = Router(
    "/api/sandboxes",
    route_handlers=[
        create_sandbox,
        list_sandboxes,
        get_sandbox,
        close_sandbox,
        sleep_sandbox,
        wake_sandbox,
        list_running,
    ],
)

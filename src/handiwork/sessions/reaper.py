"""What a former run left: sessions in the middle, and sandboxes that record and disk tell apart."""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime

import msgspec

from handiwork.model.sandbox import SandboxState
from handiwork.model.session import SessionState
from handiwork.observe import log
from handiwork.sandboxes.protocol import Driver
from handiwork.sessions.keeping import Keeping
from handiwork.sessions.lifecycle import Happening, step
from handiwork.store.protocol import Store

RESTARTED = "the host stopped while serving it; it goes on when the brain offers it again"
GONE = "its files are gone from this host"
_SERVED = (SessionState.CLAIMED, SessionState.STARTING, SessionState.ACTIVE)
_OVER = (SandboxState.FAILED, SandboxState.GONE)


async def adopt_sessions(
    store: Store, clock: Callable[[], datetime], served: Collection[str] | None = None
) -> None:
    """Tell the sessions that a former run was serving as lost. Call before anything is claimed.

    Those whose lease still runs are left as they are: it is resumed. `served` are the environments
    that we serve; a lease of another one is dropped, as one that lapsed. None: all.
    """
    resumed = await _leases_that_run(store, clock(), served)
    for state in _SERVED:
        for session in await store.sessions.list(state=state.value, limit=10_000):
            if (session.environment_id, session.work_id) in resumed:
                continue
            move = step(session.state, Happening.LOST)
            now = clock()
            lost = msgspec.structs.replace(
                session, state=move.state, reason=RESTARTED, updated_at=now
            )
            await store.sessions.save(lost)
            await store.sessions.record(session.id, "session.lost", {"reason": RESTARTED}, now)


async def _leases_that_run(
    store: Store, now: datetime, served: Collection[str] | None
) -> set[tuple[str, str]]:
    """Return environment and work id of each; two brains may give items of one id."""
    running: set[tuple[str, str]] = set()
    for kept in await store.leases.list():
        key = (kept.work.environment_id, kept.work.id)
        if kept.lapses_at > now and (served is None or kept.work.environment_id in served):
            running.add(key)
        else:
            await store.leases.remove(*key)
    return running


async def reap(
    store: Store,
    drivers: Mapping[str, Driver],
    clock: Callable[[], datetime],
    keeping: Keeping | None = None,
) -> list[str]:
    """Make records and disk agree; returns the ids whose state nobody has a record of.

    State of a sandbox that is over is deleted; a sleeping one without state is told as failed, or
    of what it wakes where its files are kept elsewhere.
    State without any record is left alone: it may be all that is left of a lost database.
    """
    records = {
        record.id: record
        for record in await store.sandboxes.list(include_gone=True, limit=1_000_000)
    }
    unknown: list[str] = []
    for tier, driver in drivers.items():
        kept = set(await driver.leftovers())
        for sandbox_id in sorted(kept):
            record = records.get(sandbox_id)
            if record is None:
                unknown.append(sandbox_id)
            elif record.state in _OVER:
                await driver.destroy(sandbox_id)
        for record in records.values():
            asleep = record.tier == tier and record.state is SandboxState.SLEEPING
            if asleep and record.id not in kept:
                source = await keeping.recoverable(record) if keeping else ""
                lost = msgspec.structs.replace(
                    record,
                    state=SandboxState.SLEEPING if source else SandboxState.FAILED,
                    reason=GONE + (f"; it wakes from {source}" if source else ""),
                    updated_at=clock(),
                )
                await store.sandboxes.save(lost)
    if unknown:
        log.get("reaper").warning("state without a record", sandboxes=unknown)
    return unknown

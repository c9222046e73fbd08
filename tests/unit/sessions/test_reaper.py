"""What a former run left."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import msgspec
import pytest

from handiwork.model.environment import KeptLease
from handiwork.model.sandbox import SandboxState
from handiwork.model.session import Session, SessionState, WorkItem
from handiwork.sessions.reaper import RESTARTED, adopt_sessions, reap
from handiwork.sessions.sandbox_request import SandboxRequest
from session_world import World, clock

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("state", list(SessionState))
async def test_sessions_in_the_middle_are_lost(world: World, state: SessionState) -> None:
    session = Session(id="sesn_1", environment_id="e", state=state, created_at=NOW, updated_at=NOW)
    await world.store.sessions.save(session)
    await adopt_sessions(world.store, clock)
    found = await world.store.sessions.get("sesn_1")
    if state in (SessionState.CLAIMED, SessionState.STARTING, SessionState.ACTIVE):
        assert (found.state, found.reason) == (SessionState.LOST, RESTARTED)
        assert await world.kinds() == ["session.lost"]
    else:
        assert found == session


def lease(work_id: str, *, environment: str = "e", ttl_seconds: float = 3600) -> KeptLease:
    work = WorkItem(id=work_id, environment_id=environment, kind="session", session_id="sesn_1")
    return KeptLease(
        work=work, last_heartbeat="t", ttl_seconds=ttl_seconds, beaten_at=datetime.now(UTC)
    )


@pytest.mark.parametrize(
    ("leased", "goes_on"),
    [
        (partial(lease, "work_1"), True),
        (partial(lease, "work_2"), False),
        (partial(lease, "work_1", ttl_seconds=-1), False),
        (partial(lease, "work_1", environment="other"), False),
    ],
    ids=["its own", "another item's", "lapsed", "of an environment not served"],
)
async def test_a_session_whose_lease_runs_goes_on(
    world: World, leased: Callable[[], KeptLease], goes_on: bool
) -> None:
    kept = leased()
    session = Session(
        id="sesn_1",
        environment_id="e",
        work_id="work_1",
        state=SessionState.ACTIVE,
        created_at=NOW,
        updated_at=NOW,
    )
    await world.store.sessions.save(session)
    await world.store.leases.save(kept)
    await adopt_sessions(world.store, clock, ["e"])
    found = await world.store.sessions.get("sesn_1")
    assert found.state is (SessionState.ACTIVE if goes_on else SessionState.LOST)
    is_ours = kept.work.environment_id == "e" and kept.ttl_seconds > 0
    assert await world.store.leases.list() == ([kept] if is_ours else [])


async def test_another_environments_item_of_the_same_id_keeps_no_session(world: World) -> None:
    session = Session(
        id="sesn_1",
        environment_id="e",
        work_id="work_1",
        state=SessionState.ACTIVE,
        created_at=NOW,
        updated_at=NOW,
    )
    await world.store.sessions.save(session)
    await world.store.leases.save(theirs := lease("work_1", environment="f"))
    await adopt_sessions(world.store, clock, ["e", "f"])
    assert (await world.store.sessions.get("sesn_1")).state is SessionState.LOST
    assert await world.store.leases.list() == [theirs]


async def test_records_and_disk_are_made_to_agree(world: World) -> None:
    drivers = {"namespace": world.driver}
    async with world:
        records = [await world.sandboxes.create(SandboxRequest()) for _ in range(4)]
    kept, over, stateless, unknown = records
    states = {over.id: SandboxState.GONE, stateless.id: SandboxState.SLEEPING}
    for record in (over, stateless):
        await world.store.sandboxes.save(msgspec.structs.replace(record, state=states[record.id]))
    await world.driver.destroy(stateless.id)
    world.store.sandboxes._records.pop(unknown.id)
    assert await reap(world.store, drivers, clock) == [unknown.id]
    assert await world.driver.leftovers() == sorted([kept.id, unknown.id])
    lost = await world.store.sandboxes.get(stateless.id)
    assert (lost.state, lost.reason) == (
        SandboxState.FAILED,
        "its files are gone from this host",
    )
    assert (await world.store.sandboxes.get(kept.id)).state is SandboxState.SLEEPING

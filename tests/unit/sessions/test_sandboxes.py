"""Sandboxes with their ways out: opened, closed, woken and refreshed together."""

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest

from handiwork.config import EgressSettings
from handiwork.model.egress import EgressGrant
from handiwork.model.errors import (
    ConfigError,
    ConflictError,
    NotFoundError,
    PolicyDeniedError,
    SandboxUnavailableError,
    UnsupportedError,
)
from handiwork.model.policy import AllowRule, Match, Policy
from handiwork.model.sandbox import ExecRequest, Limits, SandboxRecord, SandboxState
from handiwork.model.session import Session, SessionState
from handiwork.sandboxes.protocol import Wish
from handiwork.sessions.policies import NOTHING
from handiwork.sessions.sandbox_request import SandboxRequest
from session_world import World, until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SESSION = Session(
    id="sesn_1",
    environment_id="env_1",
    state=SessionState.ACTIVE,
    created_at=NOW,
    updated_at=NOW,
)
OPEN = Policy(name="open", rules=(AllowRule(id="all", match=Match(hosts=("*",))),))


async def test_create_use_sleep_wake_close(world: World) -> None:
    async with world:
        boxes = world.sandboxes
        record = await boxes.create(
            SandboxRequest(env={"A": "1"}, metadata={"m": "1"}, limits=Limits(memory_mib=64))
        )
        assert (record.state, record.tier, record.image) == (
            SandboxState.RUNNING,
            "namespace",
            "host",
        )
        binding = world.boundary.bindings[record.id]
        assert (binding.ca_id, binding.kind, binding.session_id) == (record.id, "sandbox", "")
        spec = world.driver.specs[0]
        assert (spec.env, spec.limits.memory_mib) == ({"A": "1"}, 64)
        assert spec.exit is not None
        box = await boxes.use(record.id)
        assert await boxes.use(record.id) is box
        await box.files.write("/workspace/f", b"kept")

        asleep = await boxes.sleep(record.id)
        assert asleep.state is SandboxState.SLEEPING
        assert (world.driver.live, world.boundary.bindings) == ({}, {})
        assert await boxes.sleep(record.id) == asleep

        again = await boxes.use(record.id)
        assert await again.files.read("/workspace/f") == b"kept"
        assert world.driver.specs[1].limits.memory_mib == 64
        assert (await boxes.wake(record.id)).state is SandboxState.RUNNING

        assert (await boxes.close(record.id)).state is SandboxState.GONE
        assert await world.driver.leftovers() == []
        assert world.boundary.bindings == {}
        assert (await boxes.close(record.id)).state is SandboxState.GONE
        with pytest.raises(ConflictError, match="is gone"):
            await boxes.use(record.id)
        with pytest.raises(NotFoundError):
            await boxes.use("sbx_none")


async def test_what_is_to_stand_ready_is_wished_again_after_each_and_given_up_at_the_end(
    world: World,
) -> None:
    async with world:
        await until(lambda: len(world.driver.wished) == 1)
        await world.sandboxes.create(SandboxRequest())
        await until(lambda: len(world.driver.wished) == 2)
    wish = Wish(image="host", limits=Limits(), sandboxes=2)
    assert world.driver.wished == [[wish], [wish], []]


async def test_a_sleeping_one_is_closed_without_waking(world: World) -> None:
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
        await world.sandboxes.sleep(record.id)
        await world.sandboxes.close(record.id)
        assert len(world.driver.specs) == 1
        assert await world.driver.leftovers() == []


@pytest.mark.parametrize(
    ("where", "error"),
    [
        ("driver", SandboxUnavailableError("no room")),
        ("boundary", ConfigError("bad grant")),
        ("policy", ConfigError("the session policy 'none' does not exist")),
        ("tier", UnsupportedError("the tier 'microvm' is not available here")),
    ],
)
async def test_a_failure_leaves_a_reason_and_nothing_else(
    world: World, where: str, error: Exception
) -> None:
    request = SandboxRequest(policy="none" if where == "policy" else "")
    if where == "tier":
        request = SandboxRequest(tier="microvm")
    async with world:
        if where == "driver":
            world.driver.broken = error
        if where == "boundary":
            world.boundary.broken = error
        with pytest.raises(type(error), match=str(error)[:20]):
            await world.sandboxes.create(request)
        (record,) = await world.store.sandboxes.list()
        assert record.state is SandboxState.FAILED
        assert record.reason.startswith(str(error)[:20])
        assert (world.driver.live, world.boundary.bindings) == ({}, {})
        assert await world.driver.leftovers() == []


async def test_a_failed_wake_keeps_the_files_asleep(world: World) -> None:
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
        await world.sandboxes.sleep(record.id)
        world.driver.broken = SandboxUnavailableError("disk")
        with pytest.raises(SandboxUnavailableError):
            await world.sandboxes.use(record.id)
        assert (await world.store.sandboxes.get(record.id)).state is SandboxState.SLEEPING
        assert world.boundary.bindings == {}
        world.driver.broken = None
        await world.sandboxes.use(record.id)


async def test_the_machine_has_room_for_so_many(world: World) -> None:
    async with world:
        made = [await world.sandboxes.create(SandboxRequest()) for _ in range(4)]
        with pytest.raises(SandboxUnavailableError, match="4 sandboxes run already"):
            await world.sandboxes.create(SandboxRequest())
        await world.sandboxes.sleep(made[0].id)
        await world.sandboxes.create(SandboxRequest())


@pytest.mark.parametrize("asked", ["namespace", "isolate", ""])
async def test_no_weaker_tier_is_served_whoever_asks(world: World, asked: str) -> None:
    world.settings = msgspec.structs.replace(
        world.settings,
        sandbox=msgspec.structs.replace(world.settings.sandbox, minimum_tier="gvisor"),
    )
    async with world:
        with pytest.raises(PolicyDeniedError, match="is weaker than sandbox") as told:
            await world.sandboxes.create(SandboxRequest(tier=asked))
        assert told.value.rule_id == "sandbox.minimum_tier"
        (record,) = await world.store.sandboxes.list()
        assert record.state is SandboxState.FAILED
        assert world.driver.specs == []


async def test_a_policy_keeps_weaker_tiers_from_running(world: World) -> None:
    """Also one that runs when the policy begins to want it: it may do nothing any more, and does not wake."""
    await world.store.policies.put(OPEN, NOW)
    stricter = msgspec.structs.replace(OPEN, minimum_tier="gvisor")
    async with world:
        under = await world.sandboxes.create(SandboxRequest(policy="open"))
        assert world.boundary.grants[under.id].layers
        await world.store.policies.put(stricter, NOW)
        await world.sandboxes.refresh("open")
        assert world.boundary.grants[under.id] is NOTHING
        assert "weaker than" in (await world.store.sandboxes.get(under.id)).reason
        await world.sandboxes.sleep(under.id)
        with pytest.raises(PolicyDeniedError, match="'gvisor' of the session policy 'open'"):
            await world.sandboxes.wake(under.id)
        made = len(world.driver.specs)
        with pytest.raises(PolicyDeniedError):
            await world.sandboxes.create(SandboxRequest(policy="open"))
        assert len(world.driver.specs) == made
        await world.store.policies.put(OPEN, NOW)
        await world.sandboxes.wake(under.id)
        assert world.boundary.grants[under.id].layers[0].policy == OPEN


async def test_one_that_dies_sleeps_with_the_reason(world: World) -> None:
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
        box = world.driver.live[record.id]
        await box.die("its agent was killed")
        await until(lambda: record.id not in world.boundary.bindings)
        await until(lambda: _is(world, record.id, SandboxState.SLEEPING))
        assert (await world.store.sandboxes.get(record.id)).reason == (
            "it died: its agent was killed"
        )
        assert await world.sandboxes.use(record.id) is not box


async def test_the_session_of_one_that_dies_is_told_why(world: World) -> None:
    await world.store.sessions.save(SESSION)
    async with world:
        record = await world.sandboxes.create(SandboxRequest(session_id="sesn_1"))
        await world.driver.live[record.id].die("it is over disk_mib = 64")
        await until(lambda: _is(world, record.id, SandboxState.SLEEPING))
        (notice,) = await world.store.notices.list("sesn_1")
        assert "died, and all its processes with it; its files are kept: it is over" in notice.text


async def test_what_only_the_operator_may_know_of_a_death_is_not_told_to_the_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_: str) -> None:
        raise SandboxUnavailableError("/srv/handiwork/groups/x cannot be removed")

    await world.store.sessions.save(SESSION)
    async with world:
        record = await world.sandboxes.create(SandboxRequest(session_id="sesn_1"))
        monkeypatch.setattr(world.driver, "sleep", fails)
        await world.driver.live[record.id].die("its agent was killed")
        await until(lambda: _is(world, record.id, SandboxState.SLEEPING))
        monkeypatch.undo()
        (notice,) = await world.store.notices.list("sesn_1")
        assert notice.text.endswith("its files are kept: its agent was killed")
        kept = await world.store.sandboxes.get(record.id)
        assert kept.reason.endswith("killed; /srv/handiwork/groups/x cannot be removed")


async def _is(world: World, sandbox_id: str, state: SandboxState) -> bool:
    return (await world.store.sandboxes.get(sandbox_id)).state is state


async def test_leaving_puts_all_to_sleep(world: World) -> None:
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
    assert await _is(world, record.id, SandboxState.SLEEPING)
    assert world.driver.live == {}


async def test_adopt_puts_a_former_runs_sandboxes_in_their_states(world: World) -> None:
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
    running = msgspec.structs.replace(record, state=SandboxState.RUNNING)
    lost = msgspec.structs.replace(running, id="sbx_lost")
    for one in (running, lost):
        await world.store.sandboxes.save(one)
    async with world:
        await world.sandboxes.adopt()
        assert await _is(world, record.id, SandboxState.SLEEPING)
        assert await _is(world, "sbx_lost", SandboxState.FAILED)


async def test_one_of_a_tier_that_is_not_here_any_more_sleeps_and_is_not_given_up(
    world: World,
) -> None:
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
    gone = msgspec.structs.replace(record, state=SandboxState.RUNNING, tier="microvm")
    await world.store.sandboxes.save(gone)
    async with world:
        await world.sandboxes.adopt()
        found = await world.store.sandboxes.get(record.id)
        assert found.state is SandboxState.SLEEPING
        assert (
            found.reason == "its tier 'microvm' is not available here; its files stay as they are"
        )
        with pytest.raises(UnsupportedError, match="the tier 'microvm' is not available here"):
            await world.sandboxes.wake(record.id)


async def test_a_changed_policy_reaches_who_runs_under_it(world: World) -> None:
    await world.store.policies.put(Policy(name="open", rules=()), NOW)
    async with world:
        under = await world.sandboxes.create(SandboxRequest(policy="open"))
        other = await world.sandboxes.create(SandboxRequest())
        await world.store.policies.put(OPEN, NOW)
        before = world.boundary.grants[other.id]
        await world.sandboxes.refresh("open")
        assert world.boundary.grants[under.id].layers[0].policy == OPEN
        assert world.boundary.grants[other.id] is before

        await world.store.policies.delete("open")
        await world.sandboxes.refresh("open")
        assert world.boundary.grants[under.id] is NOTHING
        assert "does not exist" in (await world.store.sandboxes.get(under.id)).reason


async def test_a_changed_policy_reaches_who_runs_though_another_goes_away_or_fails(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.store.policies.put(Policy(name="open", rules=()), NOW)
    async with world:
        boxes = [await world.sandboxes.create(SandboxRequest(policy="open")) for _ in range(3)]
        gone, failing, last = (one.id for one in boxes)
        update = world.boundary.update

        async def fail_once(binding_id: str, grant: EgressGrant) -> None:
            if binding_id == gone:
                raise NotFoundError(f"no egress binding {gone} is open")
            if binding_id == failing and grant.layers:
                raise SandboxUnavailableError("the proxy did not confirm")
            await update(binding_id, grant)

        monkeypatch.setattr(world.boundary, "update", fail_once)
        await world.store.policies.put(OPEN, NOW)
        await world.sandboxes.refresh("open")
        assert world.boundary.grants[last].layers[0].policy == OPEN
        assert world.boundary.grants[failing] is NOTHING
        assert "did not confirm" in (await world.store.sandboxes.get(failing)).reason
        assert (await world.store.sandboxes.get(gone)).reason == ""


async def test_what_fails_of_one_is_raised_when_all_were_tried(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.store.policies.put(Policy(name="open", rules=()), NOW)
    async with world:
        first, last = [
            await world.sandboxes.create(SandboxRequest(policy="open")) for _ in range(2)
        ]
        update = world.boundary.update

        async def fail(binding_id: str, grant: EgressGrant) -> None:
            if binding_id == first.id:
                raise SandboxUnavailableError("there is no proxy")
            await update(binding_id, grant)

        monkeypatch.setattr(world.boundary, "update", fail)
        await world.store.policies.put(OPEN, NOW)
        with pytest.raises(SandboxUnavailableError, match="no proxy"):
            await world.sandboxes.refresh("open")
        assert world.boundary.grants[last.id].layers[0].policy == OPEN
        monkeypatch.undo()


async def test_a_rollback_that_today_forbids_to_run_again_changes_nothing(world: World) -> None:
    await world.store.policies.put(OPEN, NOW)
    changed = []

    async def change(record: SandboxRecord, driver: object) -> None:
        changed.append(record.id)

    async with world:
        under = await world.sandboxes.create(SandboxRequest(policy="open"))
        await world.store.policies.put(msgspec.structs.replace(OPEN, minimum_tier="gvisor"), NOW)
        with pytest.raises(PolicyDeniedError):
            await world.sandboxes.replaced(under.id, change)
        assert changed == []
        assert await _is(world, under.id, SandboxState.RUNNING)
        with pytest.raises(PolicyDeniedError):
            await world.sandboxes.create_of(SandboxRequest(policy="open"), change, "snapshot 1")
        assert changed == []


async def test_wake_uses_todays_policies(world: World) -> None:
    world.settings = msgspec.structs.replace(world.settings, egress=EgressSettings(policy="open"))
    await world.store.policies.put(Policy(name="open", rules=()), NOW)
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
        await world.sandboxes.sleep(record.id)
        await world.store.policies.put(OPEN, NOW)
        await world.sandboxes.wake(record.id)
        assert world.boundary.grants[record.id].layers[0].policy == OPEN


async def test_many_at_once_wake_one_once(world: World) -> None:
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
        await world.sandboxes.sleep(record.id)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(world.sandboxes.use(record.id)) for _ in range(5)]
        assert len({id(task.result()) for task in tasks}) == 1
        box = tasks[0].result()
        assert (await box.exec(ExecRequest(argv=("echo", "x")))).stdout == b"x\n"
        assert not list(world.sandboxes._locks)


async def test_limits_outlive_the_run_that_was_given_them(world: World) -> None:
    async with world:
        request = SandboxRequest(limits=Limits(memory_mib=64))
        record = await world.sandboxes.create(request)
        assert (await world.store.sandboxes.get(record.id)).limits == Limits(memory_mib=64)


async def test_changes_of_one_sandbox_never_overlap(world: World) -> None:
    """A third caller comes just when the first has let go and the second was not yet woken."""
    inside, most = 0, 0

    async def change(turns: int) -> None:
        nonlocal inside, most
        for _ in range(turns):
            await asyncio.sleep(0)
        async with world.sandboxes._locked("sbx_one"):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            inside -= 1

    async with world:
        async with asyncio.TaskGroup() as group:
            for turns in range(8):
                group.create_task(change(turns))
        assert most == 1
        assert not list(world.sandboxes._locks)


async def test_one_that_slept_sleeps_again_after_its_last_loan(world: World) -> None:
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
        await world.sandboxes.sleep(record.id)
        async with world.sandboxes.lend(record.id) as box:
            assert box is world.driver.live[record.id]
            async with world.sandboxes.lend(record.id) as same:
                assert same is box
            assert await _is(world, record.id, SandboxState.RUNNING)
        assert await _is(world, record.id, SandboxState.SLEEPING)
        assert not world.driver.live


@pytest.mark.parametrize("how", ["wake", "use"])
async def test_a_loan_does_not_put_to_sleep_what_somebody_uses(world: World, how: str) -> None:
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
        async with world.sandboxes.lend(record.id):
            pass
        assert await _is(world, record.id, SandboxState.RUNNING)
        await world.sandboxes.sleep(record.id)
        async with world.sandboxes.lend(record.id):
            await getattr(world.sandboxes, how)(record.id)
        assert await _is(world, record.id, SandboxState.RUNNING)


async def test_two_loans_at_once_wake_it_once(world: World) -> None:
    async def look() -> None:
        async with world.sandboxes.lend(record.id):
            await asyncio.sleep(0.05)
            assert record.id in world.driver.live

    async with world:
        record = await world.sandboxes.create(SandboxRequest())
        await world.sandboxes.sleep(record.id)
        await asyncio.gather(look(), look(), look())
        assert len(world.driver.specs) == 2
        assert await _is(world, record.id, SandboxState.SLEEPING)


async def test_one_whose_making_is_cut_short_at_the_end_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saving = world.store.sandboxes.save, asyncio.Event()

    async def slow(record: SandboxRecord) -> None:
        if record.state is SandboxState.RUNNING:
            saving.set()
            await asyncio.sleep(30)
        await save(record)

    monkeypatch.setattr(world.store.sandboxes, "save", slow)
    async with world:
        making = asyncio.ensure_future(world.sandboxes.create(SandboxRequest()))
        await saving.wait()
        making.cancel()
        await asyncio.wait([making])
        assert (world.driver.live, world.boundary.bindings) == ({}, {})
        assert await world.driver.leftovers() == []
        assert world.sandboxes.free == 4
        (record,) = await world.store.sandboxes.list()
        assert record.state is SandboxState.FAILED


async def test_sessions_of_one_id_in_two_environments_are_two(world: World) -> None:
    async with world:
        boxes = world.sandboxes
        for wanted_by in ("env_a/sesn_1", "env_b/sesn_1"):
            boxes.expect(wanted_by)
        assert boxes.free == 2
        record = await boxes.create(SandboxRequest(), wanted_by="env_a/sesn_1")
        assert boxes.free == 2
        await boxes.sleep(record.id)
        boxes.expect("env_a/sesn_1")
        await boxes.wake(record.id, wanted_by="env_a/sesn_1")
        assert boxes.free == 2
        boxes.expect_no_more("env_b/sesn_1")
        assert boxes.free == 3


@pytest.mark.parametrize("used", [False, True])
async def test_one_that_is_held_sleeps_after_unless_it_is_used(world: World, *, used: bool) -> None:
    async with world:
        boxes = world.sandboxes
        record = await boxes.create(SandboxRequest())
        async with boxes.held(record.id):
            for _ in range(2):
                boxes.rest_unused(record.id)
            await asyncio.sleep(0.05)
            assert record.id in world.driver.live
            if used:
                await boxes.use(record.id)
        if used:
            await asyncio.sleep(0.1)
            assert record.id in world.driver.live
        else:
            await until(lambda: world.driver.live == {})
            await until(lambda: _state(world, record.id, SandboxState.SLEEPING))
        boxes.rest_unused("sbx_gone00000000")


async def _state(world: World, sandbox_id: str, state: SandboxState) -> bool:
    return (await world.store.sandboxes.get(sandbox_id)).state is state

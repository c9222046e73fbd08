"""Sandboxes that stand still when their session rests: who lets them go on, and how they end."""

import asyncio
import contextlib
from datetime import UTC, datetime

import msgspec
import pytest

from handiwork.config import SandboxSettings
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.policy import AllowRule, Match, Policy
from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.model.session import Session, SessionState
from handiwork.sessions import resting as resting_module
from handiwork.sessions.sandbox_request import SandboxRequest
from handiwork.tools.spool import Collector, Spool
from session_world import World, until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OPEN = Policy(name="open", rules=(AllowRule(id="all", match=Match(hosts=("*",))),))
SESSION = Session(
    id="sesn_1",
    environment_id="env_1",
    state=SessionState.SLEEPING,
    created_at=NOW,
    updated_at=NOW,
)
STANDS = "its processes stand still until it is wanted"


def freezing(world: World, seconds: float = 600.0, **more: object) -> None:
    """Have sandboxes stand still; memory is plentiful unless the test says how much that is."""
    given = {"freeze_min_free_memory_mib": 0, "min_free_memory_mib": 0, "max_sandboxes": 4, **more}
    world.settings = msgspec.structs.replace(
        world.settings, sandbox=SandboxSettings(freeze_seconds=seconds, **given)
    )


async def resting(world: World, **request: object) -> SandboxRecord:
    """Return one that stands still."""
    record = await world.sandboxes.create(SandboxRequest(**request))
    await world.sandboxes.rest(record.id)
    await until(lambda: _reason(world, record.id, STANDS))
    assert world.driver.live[record.id].rests
    return record


async def _reason(world: World, sandbox_id: str, reason: str) -> bool:
    return (await world.store.sandboxes.get(sandbox_id)).reason == reason


async def asleep(world: World, sandbox_id: str) -> None:
    await until(lambda: _state(world, sandbox_id, SandboxState.SLEEPING))
    assert sandbox_id not in world.driver.live


@pytest.mark.parametrize("how", ["use", "wake", "lend"])
async def test_one_that_stands_still_goes_on_when_it_is_wanted(world: World, how: str) -> None:
    freezing(world)
    async with world:
        boxes = world.sandboxes
        record = await resting(world)
        box = world.driver.live[record.id]
        if how == "lend":
            async with boxes.lend(record.id) as lent:
                assert lent is box
                assert not box.rests
            await until(lambda: box.rests)
        else:
            await (boxes.use if how == "use" else boxes.wake)(record.id)
            assert not box.rests
            await until(lambda: _reason(world, record.id, ""))
            assert await boxes.use(record.id) is box
            await asyncio.sleep(0.05)
            assert not box.rests
        assert len(world.driver.specs) == 1
        assert record.id in world.boundary.bindings


async def test_who_stands_still_long_enough_sleeps(world: World) -> None:
    freezing(world, 0.1)
    async with world:
        record = await resting(world)
        await asleep(world, record.id)
        assert world.boundary.bindings == {}


async def test_nobody_stands_still_while_memory_is_short(world: World) -> None:
    freezing(world, freeze_min_free_memory_mib=1 << 40)
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
        await world.sandboxes.rest(record.id)
        assert await _state(world, record.id, SandboxState.SLEEPING)


async def test_one_that_cannot_stand_still_sleeps(world: World, monkeypatch) -> None:
    @contextlib.asynccontextmanager
    async def cannot():
        raise SandboxUnavailableError("somebody moves")
        yield

    freezing(world)
    async with world:
        record = await world.sandboxes.create(SandboxRequest())
        monkeypatch.setattr(world.driver.live[record.id], "resting", cannot)
        await world.sandboxes.rest(record.id)
        await asleep(world, record.id)


async def test_who_stands_still_gives_up_its_place_the_oldest_first(world: World) -> None:
    freezing(world, max_sandboxes=2)
    async with world:
        boxes = world.sandboxes
        first, second = [await resting(world) for _ in range(2)]
        assert boxes.free == 2
        await boxes.create(SandboxRequest())
        assert await _state(world, first.id, SandboxState.SLEEPING)
        assert world.driver.live[second.id].rests
        await boxes.wake(first.id)
        assert await _state(world, second.id, SandboxState.SLEEPING)
        with pytest.raises(SandboxUnavailableError, match="2 sandboxes run already"):
            await boxes.wake(second.id)


@pytest.mark.parametrize("ending", ["sleep", "close", "die", "replaced"])
async def test_who_stands_still_ends_as_any_other(world: World, ending: str) -> None:
    freezing(world)

    async def nothing(record, driver):
        assert record.id not in world.driver.live

    async with world:
        boxes = world.sandboxes
        record = await resting(world)
        box = world.driver.live[record.id]
        match ending:
            case "die":
                await box.die("it fell")
            case "replaced":
                await boxes.replaced(record.id, nothing)
            case _:
                await getattr(boxes, ending)(record.id)
        wanted = SandboxState.GONE if ending == "close" else SandboxState.SLEEPING
        await until(lambda: _state(world, record.id, wanted))
        assert not box.rests
        assert (world.driver.live, world.boundary.bindings, boxes.free) == ({}, {}, 4)


async def test_who_is_held_goes_on_meanwhile_and_stands_still_again(world: World) -> None:
    freezing(world)
    async with world:
        record = await resting(world)
        box = world.driver.live[record.id]
        async with world.sandboxes.held(record.id) as held:
            assert held.sandbox is box
            assert not box.rests
        await until(lambda: box.rests)


async def test_who_would_get_other_variables_wakes_anew(world: World) -> None:
    freezing(world)
    async with world:
        record = await resting(world, env={"A": "1"})
        changed = msgspec.structs.replace(record, env={"A": "2"}, state=SandboxState.RUNNING)
        await world.store.sandboxes.save(changed)
        await world.sandboxes.use(record.id)
        assert [spec.env for spec in world.driver.specs] == [{"A": "1"}, {"A": "2"}]


async def test_leaving_puts_who_stands_still_to_sleep(world: World) -> None:
    freezing(world)
    async with world:
        record = await resting(world)
    await asleep(world, record.id)


async def test_who_waited_while_it_was_held_does_not_get_it_to_see_it_stand_still(
    world: World,
) -> None:
    freezing(world)
    async with world:
        boxes = world.sandboxes
        record = await resting(world)
        held = boxes.held(record.id)
        async with boxes._locked(record.id):
            holding = asyncio.ensure_future(held.__aenter__())
            await asyncio.sleep(0)
            using = asyncio.ensure_future(boxes.use(record.id))
            await asyncio.sleep(0)
        await holding
        await held.__aexit__(None, None, None)
        box = await using
        await asyncio.sleep(0.1)
        assert not box.rests


async def test_whose_time_is_over_while_it_is_wanted_goes_on(world: World, monkeypatch) -> None:
    monkeypatch.setattr(resting_module, "LOOK_SECONDS", 0.01)
    freezing(world, 0.05)
    slow = world.boundary.update

    async def update(sandbox_id, grant):
        await asyncio.sleep(0.2)
        await slow(sandbox_id, grant)

    async with world:
        record = await resting(world)
        monkeypatch.setattr(world.boundary, "update", update)
        box = await world.sandboxes.use(record.id)
        await asyncio.sleep(0.2)
        assert not box.rests
        assert world.driver.live[record.id] is box


async def test_a_session_gets_todays_grant_of_one_that_did_not_get_to_rest(world: World) -> None:
    freezing(world)
    async with world:
        boxes = world.sandboxes
        record = await boxes.create(SandboxRequest(env={"A": "1"}))
        before = len(world.driver.specs)
        changed = msgspec.structs.replace(record, env={"A": "2"}, state=SandboxState.RUNNING)
        await world.store.sandboxes.save(changed)
        await boxes.wake(record.id)
        assert len(world.driver.specs) == before
        await boxes.wake(record.id, wanted_by="env_1/sesn_1")
        assert world.driver.specs[-1].env == {"A": "2"}


async def test_one_that_is_lent_rests_after_the_last_loan(world: World) -> None:
    freezing(world)
    async with world:
        boxes = world.sandboxes
        record = await boxes.create(SandboxRequest())
        async with boxes.lend(record.id) as box:
            async with boxes.lend(record.id):
                await boxes.rest(record.id)
                assert not box.rests
            await asyncio.sleep(0.05)
            assert not box.rests
        await until(lambda: box.rests)


async def test_a_cancelled_loan_leaves_it_standing_still(world: World) -> None:
    freezing(world)

    async def looks(sandbox_id):
        async with world.sandboxes.lend(sandbox_id):
            await asyncio.sleep(60)

    async with world:
        record = await resting(world)
        box = world.driver.live[record.id]
        looking = asyncio.ensure_future(looks(record.id))
        await until(lambda: not box.rests)
        looking.cancel()
        await until(lambda: box.rests)


async def test_two_at_once_each_take_the_place_of_one_that_stands_still(
    world: World, monkeypatch
) -> None:
    freezing(world, max_sandboxes=2)
    slow = world.driver.sleep

    async def sleep(sandbox_id):
        await asyncio.sleep(0.05)
        await slow(sandbox_id)

    async with world:
        boxes = world.sandboxes
        for _ in range(2):
            await resting(world)
        monkeypatch.setattr(world.driver, "sleep", sleep)
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(boxes.create(SandboxRequest()))
        assert boxes.free == 0


async def test_who_is_wanted_meanwhile_gives_up_no_place(world: World, monkeypatch) -> None:
    freezing(world, max_sandboxes=2)
    get, failed = world.store.sandboxes.get, asyncio.Event()

    async with world:
        boxes = world.sandboxes
        first, second = [await resting(world) for _ in range(2)]

        async def away(sandbox_id):
            if sandbox_id == first.id and not failed.is_set():
                failed.set()
                await asyncio.sleep(0.1)
                raise SandboxUnavailableError("the store is away")
            return await get(sandbox_id)

        monkeypatch.setattr(world.store.sandboxes, "get", away)
        making = asyncio.ensure_future(boxes.create(SandboxRequest()))
        await failed.wait()
        box = await boxes.use(second.id)
        with pytest.raises(SandboxUnavailableError, match="2 sandboxes run already"):
            await making
        assert not box.rests


async def test_one_that_must_start_anew_keeps_its_place_and_is_not_worked_on(
    world: World, monkeypatch
) -> None:
    freezing(world, max_sandboxes=1)
    async with world:
        boxes = world.sandboxes
        record = await resting(world, env={"A": "1"})
        changed = msgspec.structs.replace(record, env={"A": "2"}, state=SandboxState.RUNNING)
        await world.store.sandboxes.save(changed)
        slept = []
        monkeypatch.setattr(boxes._keeping, "slept", lambda *_, **__: slept.append(1))
        close, refused = world.boundary.close, []

        async def take_it(sandbox_id):
            await close(sandbox_id)
            try:
                await boxes.create(SandboxRequest())
            except SandboxUnavailableError as error:
                refused.append(error)

        monkeypatch.setattr(world.boundary, "close", take_it)
        await boxes.wake(record.id, wanted_by="env_1/sesn_1")
        monkeypatch.setattr(world.boundary, "close", close)
        assert len(refused) == 1
        assert slept == []
        assert world.driver.specs[-1].env == {"A": "2"}
        assert boxes.free == 0


async def test_a_loan_beside_a_wake_is_not_the_last_word(world: World) -> None:
    freezing(world)
    async with world:
        boxes = world.sandboxes
        record = await resting(world)
        async with boxes._locked(record.id):
            lent = boxes.lend(record.id)
            lending = asyncio.ensure_future(lent.__aenter__())
            await asyncio.sleep(0)
            waking = asyncio.ensure_future(boxes.wake(record.id, wanted_by="env_1/sesn_1"))
            await asyncio.sleep(0)
        box = await lending
        await waking
        await lent.__aexit__(None, None, None)
        await asyncio.sleep(0.05)
        assert not box.rests


async def test_a_loan_that_is_cancelled_on_the_way_leaves_it_standing_still(
    world: World, monkeypatch
) -> None:
    freezing(world)

    async def looks(sandbox_id):
        async with world.sandboxes.lend(sandbox_id):
            raise AssertionError

    async with world:
        record = await resting(world)
        box = world.driver.live[record.id]
        save, saving = world.store.sandboxes.save, asyncio.Event()

        async def stuck(record):
            saving.set()
            await asyncio.sleep(60)

        monkeypatch.setattr(world.store.sandboxes, "save", stuck)
        looking = asyncio.ensure_future(looks(record.id))
        await saving.wait()
        assert not box.rests
        monkeypatch.setattr(world.store.sandboxes, "save", save)
        looking.cancel()
        await until(lambda: box.rests)


async def test_a_place_is_not_waited_for_where_the_oldest_is_held(world: World) -> None:
    freezing(world, max_sandboxes=2)
    async with world:
        boxes = world.sandboxes
        first, second = [await resting(world) for _ in range(2)]
        async with boxes._locked(first.id), asyncio.timeout(5):
            await boxes.create(SandboxRequest())
        assert await _state(world, second.id, SandboxState.SLEEPING)
        async with boxes._locked(first.id), asyncio.timeout(5):
            with pytest.raises(SandboxUnavailableError, match="2 sandboxes run already"):
                await boxes.create(SandboxRequest())


async def test_a_policy_that_changes_while_one_is_made_holds_for_it(
    world: World, monkeypatch
) -> None:
    async with world:
        boxes, make = world.sandboxes, world.driver.create

        async def create(spec):
            await world.store.policies.put(msgspec.structs.replace(OPEN, rules=()), NOW)
            await boxes.refresh("open")
            return await make(spec)

        await world.store.policies.put(OPEN, NOW)
        monkeypatch.setattr(world.driver, "create", create)
        record = await boxes.create(SandboxRequest(policy="open"))
        assert world.boundary.grants[record.id].layers[0].policy.rules == ()


async def _state(world: World, sandbox_id: str, state: SandboxState) -> bool:
    return (await world.store.sandboxes.get(sandbox_id)).state is state


@pytest.mark.parametrize("session", ["sesn_1", ""])
async def test_one_that_somebody_woke_rests_again_when_it_is_a_sessions(
    world: World, session: str
) -> None:
    world.settings = msgspec.structs.replace(
        world.settings, sandbox=SandboxSettings(woken_seconds=0.05, max_sandboxes=4)
    )
    await world.store.sessions.save(SESSION)
    async with world:
        record = await world.sandboxes.create(SandboxRequest(session_id=session))
        await world.sandboxes.sleep(record.id)
        await world.sandboxes.use(record.id)
        world.sandboxes.renewals[record.id] = no_renewal  # its session is served
        await asyncio.sleep(0.15)
        assert await _state(world, record.id, SandboxState.RUNNING)
        world.driver.live[record.id].calls = 1  # somebody's command is under way
        del world.sandboxes.renewals[record.id]
        await asyncio.sleep(0.15)
        assert await _state(world, record.id, SandboxState.RUNNING)
        world.driver.live[record.id].calls = 0
        if session:
            await asleep(world, record.id)
        else:
            await asyncio.sleep(0.15)
            assert await _state(world, record.id, SandboxState.RUNNING)


async def test_a_shell_that_was_killed_hides_no_call(world: World) -> None:
    world.settings = msgspec.structs.replace(
        world.settings, sandbox=SandboxSettings(woken_seconds=0.05, max_sandboxes=4)
    )
    await world.store.sessions.save(SESSION)
    async with world:
        record = await world.sandboxes.create(SandboxRequest(session_id="sesn_1"))
        box = await world.sandboxes.use(record.id)
        shell = await world.sandboxes.tools(record.id).shell("", box)
        world.driver.live[record.id].calls = 1  # somebody's command, all along
        await shell.run("true", Collector(Spool(box), "sevt_1"), timeout_seconds=10)
        await world.driver.live[record.id].started[0].signal(9)
        await world.driver.live[record.id].started[0].wait()
        await asyncio.sleep(0.15)
        assert await _state(world, record.id, SandboxState.RUNNING)
        world.driver.live[record.id].calls = 0
        await asleep(world, record.id)


async def test_one_that_stands_still_does_so_as_long_as_it_is_to(world: World) -> None:
    freezing(world, woken_seconds=0.05)
    await world.store.sessions.save(SESSION)
    async with world:
        record = await world.sandboxes.create(SandboxRequest(session_id="sesn_1"))
        await world.sandboxes.use(record.id)
        await world.sandboxes.rest(record.id)
        await until(lambda: _reason(world, record.id, STANDS))
        await asyncio.sleep(0.2)
        assert world.driver.live[record.id].rests


async def test_one_that_was_woken_and_not_used_rests_again(world: World) -> None:
    world.settings = msgspec.structs.replace(
        world.settings, sandbox=SandboxSettings(woken_seconds=0.05, max_sandboxes=4)
    )
    await world.store.sessions.save(SESSION)
    async with world:
        record = await world.sandboxes.create(SandboxRequest(session_id="sesn_1"))
        await world.sandboxes.sleep(record.id)
        await world.sandboxes.wake(record.id)
        await asleep(world, record.id)


async def no_renewal() -> None:
    """Nothing was replaced."""

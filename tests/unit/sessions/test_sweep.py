"""Resting sessions that end at the brain are let go of; nothing else deletes anything."""

import asyncio
import dataclasses
from types import SimpleNamespace

import msgspec
import pytest

from handiwork.model.errors import (
    BrainRefusedError,
    HandiworkError,
    UnauthorizedError,
    UnsupportedError,
)
from handiwork.model.sandbox import SandboxState
from handiwork.model.session import BrainSessionEnded, Session, SessionState
from handiwork.sessions.polling import PollBudget
from handiwork.sessions.sandbox_request import SandboxRequest
from handiwork.sessions.sweep import RESTING, Sweep
from session_world import World, clock, until


async def rests(world: World, session_id: str, **fields: object) -> Session:
    """Make a sleeping session with a sandbox's files."""
    made = await world.sandboxes.create(SandboxRequest(session_id="", tier="namespace"))
    await world.sandboxes.sleep(made.id)
    now = clock()
    session = Session(
        id=session_id,
        environment_id="env_fake",
        state=SessionState.SLEEPING,
        sandbox_id=made.id,
        created_at=now,
        updated_at=now,
    )
    session = msgspec.structs.replace(session, **fields)
    await world.store.sessions.save(session)
    return session


def sweep(world: World, serving: tuple[str, ...] = ()) -> Sweep:
    return Sweep(world.hands, PollBudget(1_000_000), SimpleNamespace(serving=serving))


async def kept(world: World, session: Session) -> bool:
    record = await world.store.sandboxes.get(session.sandbox_id)
    found = await world.store.sessions.get(session.id)
    is_kept = record.state is SandboxState.SLEEPING
    assert is_kept is (session.sandbox_id in await world.driver.leftovers())
    assert is_kept is (found.state is not SessionState.ENDED)
    return is_kept


def asked(world: World) -> dict[str, float]:
    metric = world.metrics._questions
    return {
        outcome: metric.labels(outcome)._value.get() for outcome in ("goes_on", "over", "failed")
    }


@pytest.mark.parametrize("state", RESTING)
async def test_what_the_brain_ended_or_deleted_is_let_go_of(
    world: World, state: SessionState
) -> None:
    for session_id in ("sesn_1", "sesn_2"):
        world.agent(session_id)
    world.brain.emit("sesn_2", BrainSessionEnded(reason="archived"))
    async with world:
        goes_on = await rests(world, "sesn_1", state=state)
        ended = await rests(world, "sesn_2", state=state)
        deleted = await rests(world, "sesn_3", state=state)
        await sweep(world).once()
        assert [await kept(world, one) for one in (goes_on, ended, deleted)] == [True, False, False]
        assert (await world.store.sessions.get("sesn_3")).reason == "the brain deleted it"
        assert await world.kinds("sesn_3") == ["session.ended"]
        assert asked(world) == {"goes_on": 1, "over": 2, "failed": 0}
        await sweep(world).once()
        assert asked(world) == {"goes_on": 2, "over": 2, "failed": 0}


async def test_a_brain_that_cannot_be_asked_deletes_nothing_and_is_left_alone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world:
        sessions = [await rests(world, f"sesn_{n}") for n in range(3)]
        world.brain.unavailable = "it is away"
        await sweep(world).once()
        world.brain.unavailable = ""

        async def refused(_session_id: str) -> str:
            raise UnauthorizedError("the key is refused")

        monkeypatch.setattr(world.brain, "ended", refused)
        await sweep(world).once()
        assert all([await kept(world, one) for one in sessions])
        assert asked(world) == {"goes_on": 0, "over": 0, "failed": 2}


@pytest.mark.parametrize("fault", [BrainRefusedError("not this one"), RuntimeError("a fault")])
async def test_one_session_that_cannot_be_asked_about_keeps_no_other_from_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    ask = world.brain.ended

    async def refused(session_id: str) -> str:
        if session_id == "sesn_2":
            raise fault
        return await ask(session_id)

    async with world:
        sessions = [await rests(world, f"sesn_{n}") for n in (1, 2, 3)]
        monkeypatch.setattr(world.brain, "ended", refused)
        await sweep(world).once()
        assert [await kept(world, one) for one in sessions] == [False, True, False]
        assert asked(world) == {"goes_on": 0, "over": 2, "failed": 1}


@pytest.mark.parametrize("fault", [UnsupportedError("no such tier"), OSError("the disk fails")])
async def test_one_sandbox_that_cannot_be_deleted_keeps_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    async with world:
        sessions = [await rests(world, f"sesn_{n}") for n in (1, 2, 3)]
        destroy = world.driver.destroy

        async def fails(sandbox_id: str) -> None:
            if sandbox_id == sessions[1].sandbox_id:
                raise fault
            await destroy(sandbox_id)

        monkeypatch.setattr(world.driver, "destroy", fails)
        await sweep(world).once()
        assert [await kept(world, one) for one in sessions] == [False, True, False]


async def test_a_pass_that_fails_ends_nothing_and_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world:
        await rests(world, "sesn_1")
        listed, tries = world.store.sessions.list, []

        async def fails(**more: object) -> list[Session]:
            tries.append(more)
            if len(tries) < 3:
                raise OSError("the disk fails")
            return await listed(**more)

        settings = msgspec.structs.replace(world.hands.settings, ask_seconds=0.01)
        hands = dataclasses.replace(world.hands, settings=settings)
        running = asyncio.ensure_future(Sweep(hands, PollBudget(1_000_000), world.dispatcher).run())
        with monkeypatch.context() as patch:
            patch.setattr(world.store.sessions, "list", fails)
            await until(lambda: len(tries) > 2)
        await world.session_in("ended")
        hands.drain.begin()
        async with asyncio.timeout(15):
            await running


async def test_what_is_served_or_another_environments_is_left_alone(world: World) -> None:
    async with world:
        served = await rests(world, "sesn_1")
        woken = await rests(world, "sesn_2", state=SessionState.ACTIVE)
        theirs = await rests(world, "sesn_3", environment_id="env_other")
        await sweep(world, serving=("sesn_1",)).once()
        assert all([await kept(world, one) for one in (served, woken, theirs)])


async def test_questions_keep_to_the_budget(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = list[float]()
    times = iter(range(1_000_000))

    async def slept(seconds: float) -> None:
        pauses.append(seconds)

    async with world:
        for n in range(3):
            await rests(world, f"sesn_{n}")
        polls = PollBudget(6000)  # ten questions a second
        asking = Sweep(world.hands, polls, world.dispatcher, now=lambda: next(times) / 100)
        monkeypatch.setattr("handiwork.sessions.sweep.asyncio.sleep", slept)
        await asking.once()
        monkeypatch.undo()
        assert asked(world)["over"] == 3
        assert pauses
        assert max(pauses) <= 0.1


async def test_it_runs_until_the_drain_and_never_with_zero(world: World) -> None:
    async with world:
        session = await rests(world, "sesn_1")
        for seconds, stays in ((0.0, True), (0.01, False)):
            settings = msgspec.structs.replace(world.hands.settings, ask_seconds=seconds)
            hands = dataclasses.replace(world.hands, settings=settings)
            running = asyncio.ensure_future(
                Sweep(hands, PollBudget(1_000_000), world.dispatcher).run()
            )
            if seconds:
                await world.session_in("ended")
                hands.drain.begin()
            async with asyncio.timeout(15):
                await running
            assert await kept(world, session) is stays


async def test_a_failed_delete_is_tried_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(_sandbox_id: str) -> None:
        raise HandiworkError("the disk is away")

    async with world:
        session = await rests(world, "sesn_1")
        with monkeypatch.context() as patch:
            patch.setattr(world.driver, "destroy", fails)
            await sweep(world).once()
        assert await kept(world, session)
        await sweep(world).once()
        assert not await kept(world, session)

"""The claim loop: what stops it, what it waits for."""

import asyncio

import pytest

from handiwork.fleet.local import LocalFleet
from handiwork.model.errors import BrainUnavailableError, UnauthorizedError
from handiwork.model.session import WorkItem
from handiwork.sessions import dispatcher
from handiwork.sessions.dispatcher import Dispatcher
from session_world import World, call, until


async def test_an_unreachable_brain_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "FIRST_PAUSE_SECONDS", 0.01)
    world.agent()
    world.brain.unavailable = "connection refused"
    async with world:
        await until(lambda: world.dispatcher.state == "waiting")
        assert world.dispatcher.reason == "connection refused"
        world.brain.unavailable = ""
        world.brain.say("sesn_1", call("a"))
        await world.posted(1)
        assert (world.dispatcher.state, world.dispatcher.reason) == ("polling", "")


async def test_a_brain_that_refuses_us_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused() -> WorkItem | None:
        raise UnauthorizedError("the environment key is not valid")

    monkeypatch.setattr(world.brain, "claim", refused)
    async with world:
        await until(lambda: world.dispatcher.state == "refused")
        assert world.dispatcher.reason == "the environment key is not valid"


async def test_a_full_machine_claims_nothing(world: World) -> None:
    for number in range(2):
        world.agent(f"sesn_{number}")
    async with world, LocalFleet(max_sessions=1) as fleet:
        world._claiming.cancel()
        await asyncio.wait([world._claiming])
        full = Dispatcher(world.hands, fleet)
        claiming = asyncio.ensure_future(full.run())
        world.brain.say("sesn_0", call("a", "sleep 0.3", session_id="sesn_0"))
        await until(lambda: fleet.free == 0)
        world.brain.say("sesn_1", call("b", session_id="sesn_1"))
        await world.posted(1)
        assert [s.id for s in await world.store.sessions.list()] == ["sesn_0"]
        await fleet.stop("sesn_0")
        await world.posted(2)
        claiming.cancel()
        await asyncio.wait([claiming])


async def test_a_brain_that_does_not_wait_is_not_asked_in_a_hot_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def empty() -> None:
        nonlocal asked
        asked += 1
        if asked > 50:
            raise BrainUnavailableError("asked too often")

    monkeypatch.setattr(world.brain, "claim", empty)
    async with world:
        await asyncio.sleep(0.5)
        assert world.dispatcher.state == "polling"


async def test_a_wake_ends_a_pause(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "FIRST_PAUSE_SECONDS", 3600.0)
    monkeypatch.setattr(dispatcher, "LONGEST_PAUSE_SECONDS", 3600.0)
    world.agent()
    world.brain.unavailable = "connection refused"
    async with world:
        await until(lambda: world.dispatcher.state == "waiting")
        world.brain.unavailable = ""
        world.brain.say("sesn_1", call("a"))
        await asyncio.sleep(0.05)
        assert world.dispatcher.state == "waiting"
        world.dispatcher.wake()
        await world.posted(1)


async def test_stopping_what_is_not_served(world: World) -> None:
    async with world:
        assert not await world.dispatcher.stop("sesn_none")
        assert world.hands.stops == set()

"""The claim loop: what stops it, what it waits for."""

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from handiwork.fleet.local import LocalFleet
from handiwork.model.errors import (
    BrainUnavailableError,
    HandiworkError,
    LeaseLostError,
    SandboxUnavailableError,
    UnauthorizedError,
)
from handiwork.model.sandbox import SandboxSpec
from handiwork.model.session import BrainSession, TurnIdle, WaitingKind, WorkItem
from handiwork.observe.metrics import Census
from handiwork.sandboxes.protocol import Sandbox
from handiwork.sessions import backoff, dispatcher
from handiwork.sessions.backoff import BackOff, Failure
from handiwork.sessions.dispatcher import Dispatcher
from handiwork.sessions.polling import PollBudget
from handiwork.sessions.runner import HOST_STOPPED, serve
from handiwork.testing.brain import FakeBrain
from session_world import World, call, clock, text, until


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


async def test_a_brain_that_refuses_us_is_asked_again_when_woken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    claim = world.brain.claim

    async def refused() -> WorkItem | None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise UnauthorizedError("the environment key is not valid")
        return await claim()

    monkeypatch.setattr(world.brain, "claim", refused)
    async with world:
        await until(lambda: world.dispatcher.state == "refused")
        assert world.dispatcher.reason == "the environment key is not valid"
        await asyncio.sleep(0.2)
        assert asked == 1
        world.dispatcher.wake()
        await until(lambda: world.dispatcher.state == "polling")


async def test_a_wake_ends_the_wait_for_a_brain_that_was_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "FIRST_PAUSE_SECONDS", 1000.0)
    world.brain.unavailable = "away"
    async with world:
        await until(lambda: world.dispatcher.state == "waiting")
        world.brain.unavailable = ""
        world.dispatcher.wake()
        await until(lambda: world.dispatcher.state == "polling")


async def test_what_the_brain_asks_to_wait_is_waited_even_when_woken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def limited() -> WorkItem | None:
        nonlocal asked
        asked += 1
        raise BrainUnavailableError("429", retry_seconds=1000)

    monkeypatch.setattr(world.brain, "claim", limited)
    async with world:
        for _ in range(3):
            await until(lambda: world.dispatcher.state == "waiting")
            world.dispatcher.wake()
            await asyncio.sleep(0.1)
        assert asked == 1


@pytest.mark.parametrize("full", ["fleet", "machine"])
async def test_a_full_machine_claims_nothing_and_says_why(world: World, full: str) -> None:
    world.agent()
    reason = "no memory" if full == "machine" else ""
    async with world, LocalFleet(max_sessions=1) as fleet:
        world._claiming.cancel()
        await asyncio.wait([world._claiming])
        if full == "fleet":
            await fleet.reserve()
        claims = Dispatcher(world.hands, fleet, full=lambda: reason)
        claiming = asyncio.ensure_future(claims.run())
        world.brain.say("sesn_1", call("a"))
        await until(lambda: claims.state == "full")
        assert ("max_sessions" if full == "fleet" else "no memory") in claims.reason
        await asyncio.sleep(0.2)
        assert await world.store.sessions.list() == []
        reason = ""
        if full == "fleet":
            fleet.release()
        await world.posted(1)
        await until(lambda: claims.serving == ("sesn_1",) or claims.state == "full")
        claiming.cancel()
        await asyncio.wait([claiming])


@pytest.mark.parametrize("full", ["fleet", "machine"])
@pytest.mark.parametrize("drained", [False, True])
async def test_more_kept_leases_than_there_is_room_for_are_told_as_full(
    world: World, monkeypatch: pytest.MonkeyPatch, *, full: str, drained: bool
) -> None:
    world.agent()
    reason = "no memory" if full == "machine" else ""
    async with world, LocalFleet(max_sessions=1) as fleet:
        world._claiming.cancel()
        await asyncio.wait([world._claiming])
        world.brain.say("sesn_1", call("a"))
        kept = await world.brain.claim()
        assert kept is not None

        async def resume() -> list[WorkItem]:
            return [kept]

        monkeypatch.setattr(world.brain, "resume", resume)
        if full == "fleet":
            await fleet.reserve()
        claims = Dispatcher(world.hands, fleet, full=lambda: reason)
        claiming = asyncio.ensure_future(claims.run())
        await until(lambda: claims.state == "full")
        assert ("sessions.max_sessions" if full == "fleet" else "no memory") in claims.reason
        if drained:
            world.hands.drain.begin()
            await claims.ended.wait()
            assert world.brain.posts == []
            assert world.brain.stops == []
        reason = ""
        if full == "fleet":
            fleet.release()
        if not drained:
            await world.posted(1)
            await until(lambda: claims.serving == ("sesn_1",))
        claiming.cancel()
        await asyncio.wait([claiming])


@pytest.mark.parametrize("broken", [False, True])
async def test_a_session_counts_from_its_claim_until_it_has_a_sandbox(
    world: World, monkeypatch: pytest.MonkeyPatch, *, broken: bool
) -> None:
    world.agent()
    going_on = asyncio.Event()
    free: list[int] = []
    async with world:
        create, describe = world.driver.create, world.brain.describe

        async def looked(work: WorkItem) -> BrainSession:
            free.append(world.sandboxes.free)
            return await describe(work)

        async def slow(spec: SandboxSpec) -> Sandbox:
            free.append(world.sandboxes.free)
            await going_on.wait()
            if broken:
                raise SandboxUnavailableError("no user namespaces")
            return await create(spec)

        monkeypatch.setattr(world.brain, "describe", looked)
        monkeypatch.setattr(world.driver, "create", slow)
        world.brain.say("sesn_1", call("a"))
        await until(lambda: len(free) == 2)
        going_on.set()
        await world.posted(1)
        assert (free, world.sandboxes.free) == ([3, 3], 4 if broken else 3)


async def test_one_place_is_shared_by_all_environments_in_turn(world: World) -> None:
    """Two idle queues and one place: neither keeps the other from being polled."""
    asked: list[int] = []
    async with world, LocalFleet(max_sessions=1) as fleet:
        world._claiming.cancel()
        await asyncio.wait([world._claiming])
        loops = []
        for number in range(2):
            brain = FakeBrain(f"env_{number}")
            claim = brain.claim

            async def noted(
                number: int = number, claim: Callable[[], Awaitable[WorkItem | None]] = claim
            ) -> WorkItem | None:
                asked.append(number)
                await asyncio.sleep(0.06)
                return await claim()

            brain.claim = noted  # type: ignore[method-assign]  # counted
            hands = dataclasses.replace(world.hands, brain=brain)
            budget = PollBudget(100_000)
            loops.append(asyncio.ensure_future(Dispatcher(hands, fleet, polls=budget).run()))
        await until(lambda: len(asked) >= 12)
        for loop in loops:
            loop.cancel()
        await asyncio.wait(loops)
    assert abs(asked.count(0) - asked.count(1)) <= 2


async def test_those_that_were_left_alone_do_not_take_the_turn_of_a_claim(world: World) -> None:
    """Bodies that want their places back, and always some of them: claims get theirs all the same."""
    world.agent()
    served = asyncio.Event()
    async with world, LocalFleet(max_sessions=1) as fleet:
        world._claiming.cancel()
        await asyncio.wait([world._claiming])

        async def comes_back() -> None:
            while not served.is_set():
                async with fleet.apart():
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.6)

        for number in range(3):
            await fleet.submit(f"body_{number}", comes_back)
            await until(lambda: fleet.free == 1)
        claims = Dispatcher(world.hands, fleet)
        claiming = asyncio.ensure_future(claims.run())
        world.brain.say("sesn_1", call("a"))
        await until(lambda: claims.serving == ("sesn_1",))
        served.set()
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


class Poison:
    """Makes a fault of ours of every try of `sesn_1`, until it is cured."""

    def __init__(self, world: World) -> None:
        self.tries = 0
        self.cured = False
        self._describe = world.brain.describe
        world.brain.describe = self._faulty  # type: ignore[method-assign]

    async def _faulty(self, work: WorkItem) -> BrainSession:
        if work.session_id == "sesn_1" and not self.cured:
            self.tries += 1
            raise RuntimeError("odd")
        return await self._describe(work)


def retries(world: World) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether `sesn_1` is shown as left alone."""

    async def shown() -> bool:
        session = await world.session_in("claimed", "starting", "active", "stopped")
        return [one.kind for one in session.waiting] == [WaitingKind.RETRY]

    return shown


@pytest.mark.parametrize("aside", [True, False])
async def test_a_session_that_always_fails_is_left_alone_and_keeps_nobody_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch, *, aside: bool
) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 250.0)
    monkeypatch.setattr(dispatcher, "MAX_ASIDE", 1 if aside else 0)
    poison = Poison(world)
    world.agent()
    world.agent("sesn_2")
    async with world:
        world.brain.say("sesn_1", call("a"))
        await until(retries(world))
        (wait,) = (await world.store.sessions.get("sesn_1")).waiting
        assert "1 times in a row and is tried again 250 s after" in wait.reason
        assert "(RuntimeError)" in wait.reason
        counted = world.metrics.text(Census(), clock()).decode()
        assert 'handiwork_session_waits{kind="retry"} 1.0' in counted
        world.brain.say("sesn_2", call("b", session_id="sesn_2"))
        await world.posted(1)
        assert poison.tries == 1
        assert len(world.brain.held) == 2
        # One more place is taken while a poll is open.
        await until(lambda: world.fleet.free == (7 if aside else 5))


async def test_what_is_said_to_a_session_that_is_left_alone_is_served_by_the_next_try(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.2)
    poison = Poison(world)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a"))
        await until(lambda: poison.tries >= 3)
        await until(retries(world))
        world.brain.say("sesn_1", call("b"))
        poison.cured = True
        assert {one.tool_use_id for one in await world.posted(2)} == {"a", "b"}
        assert (await world.session_in("active")).waiting == ()


async def test_a_session_that_is_left_alone_is_given_back_when_serving_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 250.0)
    Poison(world)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a"))
        await until(retries(world))
        await until(lambda: len(world.brain.held) == 1)
        world.hands.drain.begin()
        await until(lambda: not world.brain.held)
        assert (await world.session_in("stopped")).reason == HOST_STOPPED


async def test_a_session_that_waits_for_its_place_again_is_not_tried_once_serving_ends(
    world: World,
) -> None:
    world.agent()
    waits, has_place = asyncio.Event(), asyncio.Event()

    class Over(BackOff):
        def of(self, session_id: str, now: float) -> Failure:
            return Failure(1, f"{session_id} is odd", now, now)

    @contextlib.asynccontextmanager
    async def aside() -> AsyncIterator[None]:
        yield
        waits.set()
        await has_place.wait()

    async with world:
        world._claiming.cancel()
        await asyncio.wait([world._claiming])
        world.brain.say("sesn_1", call("a"))
        work = await world.brain.claim()
        assert work is not None
        hands = dataclasses.replace(world.hands, backoff=Over())
        serving = asyncio.ensure_future(serve(hands, work, aside))
        await waits.wait()
        world.hands.drain.begin()
        has_place.set()
        await serving
        assert (await world.session_in("stopped")).reason == HOST_STOPPED
        assert "session.starting" not in await world.kinds()
        assert await world.store.sandboxes.list() == []


@pytest.mark.parametrize("drained", [False, True])
async def test_a_session_that_was_left_alone_waits_for_room_as_a_claim_does(
    world: World, monkeypatch: pytest.MonkeyPatch, *, drained: bool
) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 0.5)
    monkeypatch.setattr(dispatcher, "LOOK_SECONDS", 0.1)
    poison = Poison(world)
    world.agent()
    full, looks = "", 0

    def room() -> str:
        nonlocal looks
        looks += 1
        return full

    async with world:
        world._claiming.cancel()
        await asyncio.wait([world._claiming])
        claims = Dispatcher(world.hands, world.fleet, full=room)
        claiming = asyncio.ensure_future(claims.run())
        world.brain.say("sesn_1", call("a", "echo ran"))
        await until(retries(world))
        await until(lambda: len(world.brain.held) == 1)
        full, poison.cured = "no memory", True
        looked = looks
        await until(lambda: looks > looked + 20)
        assert world.sandboxes.free == 4
        if drained:
            world.hands.drain.begin()
            await until(lambda: not world.brain.held)
        assert world.brain.posts == []
        full = ""
        if not drained:
            assert text((await world.posted(1))[0]) == "ran"
        claiming.cancel()
        await asyncio.wait([claiming])


async def test_a_stop_of_a_session_that_is_left_alone_holds_for_the_rest_of_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_SECONDS", 250.0)
    idle = msgspec.structs.replace(world.settings.sessions, idle_seconds=0.05)
    world.settings = msgspec.structs.replace(world.settings, sessions=idle)
    poison = Poison(world)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo ran"))
        await until(retries(world))
        assert await world.dispatcher.stop("sesn_1")
        poison.cured = True
        world.hands.backoff.rested("sesn_1")
        world.brain.offer("sesn_1")
        assert "stopped by the operator" in text((await world.posted(1))[0])
        world.brain.emit("sesn_1", TurnIdle(stop_reason="end_turn"))
        await until(lambda: not world.brain.held)
        world.brain.say("sesn_1", call("b", "echo served"))
        assert text((await world.posted(2))[1]) == "served"


async def test_stopping_what_is_not_served(world: World) -> None:
    async with world:
        assert not await world.dispatcher.stop("sesn_none")
        assert world.hands.stops == set()


@pytest.mark.parametrize(
    "error", [LeaseLostError("412"), HandiworkError("odd"), OSError(28, "disk full")]
)
async def test_no_fault_of_a_poll_ends_the_claiming(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(dispatcher, "FIRST_PAUSE_SECONDS", 0.01)
    claim, faults = world.brain.claim, [error]

    async def faulty() -> WorkItem | None:
        if faults:
            raise faults.pop()
        return await claim()

    monkeypatch.setattr(world.brain, "claim", faulty)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a"))
        await world.posted(1)
        # One more place is taken while a poll is open.
        await until(lambda: (world.dispatcher.state, world.fleet.free) == ("polling", 6))

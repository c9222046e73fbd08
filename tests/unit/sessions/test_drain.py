"""The end of serving, on a brain in memory and host programs: calls may end, nothing new begins."""

import asyncio

import pytest

from handiwork.model.session import SessionState, TurnIdle
from handiwork.sessions import drain as module
from handiwork.sessions.calls import CUT_SHORT
from handiwork.sessions.drain import Drain, drained
from handiwork.sessions.runner import HOST_STOPPED
from session_world import World, call, text, until


async def end(world: World, grace_seconds: float = 20) -> None:
    await drained(world.hands.drain, world.fleet, [world.dispatcher], grace_seconds=grace_seconds)


async def started(world: World, count: int = 1) -> None:
    async def all_of_them() -> bool:
        return (await world.kinds()).count("tool.started") >= count

    await until(all_of_them)


async def test_a_running_call_ends_and_is_posted_and_the_item_is_given_back(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "sleep 0.5; echo whole"), call("b", "echo never"))
        await started(world)
        await end(world)
        assert [text(result) for result in world.brain.posts] == ["whole"]
        assert await world.store.ledger.get("sesn_1", "b") is None
        session = await world.store.sessions.get("sesn_1")
        assert (session.state, session.reason) == (SessionState.STOPPED, HOST_STOPPED)
        assert world.brain.stops == [session.work_id]
        assert world.driver.live == {}
        assert (world.dispatcher.state, world.fleet.free) == ("draining", 8)


async def test_what_was_given_back_is_done_by_the_next_run(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "sleep 0.5; echo x >> f"), call("b", "cat f"))
        await started(world)
        await end(world)
    async with world:
        posts = await world.posted(2)
    assert [(post.tool_use_id, text(post)) for post in posts] == [("a", "(no output)"), ("b", "x")]


async def test_a_call_that_outlives_the_grace_is_cut_and_answered_by_the_next_run(
    world: World,
) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo x >> f; sleep 30"), call("b", "cat f"))
        await started(world)
        await end(world, grace_seconds=0.3)
        assert world.brain.posts == []
        entry = await world.store.ledger.get("sesn_1", "a")
        assert entry is not None
        assert entry.state == "started"
    async with world:
        posts = await world.posted(2)
    assert [text(post) for post in posts] == [CUT_SHORT, "x"]


async def test_a_second_signal_cuts_at_once(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "sleep 30"))
        await started(world)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(end(world, grace_seconds=600))
            await asyncio.sleep(0.1)
            world.hands.drain.hurry()
        assert len(world.brain.stops) == 1


async def test_a_session_between_turns_sleeps(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a"))
        await world.posted(1)
        await until(lambda: TurnIdle(stop_reason="end_turn") in world.brain.events_of("sesn_1"))
        await end(world)
        await world.session_in("sleeping")


async def test_nothing_is_claimed_once_it_has_begun(world: World) -> None:
    world.agent()
    async with world:
        await end(world)
        world.brain.say("sesn_1", call("a"))
        await asyncio.sleep(0.3)
        assert await world.store.sessions.list() == []


async def test_what_does_not_let_go_is_not_waited_for_without_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LAST_SECONDS", 0.1)
    async with world:
        stuck = asyncio.Event()

        async def body() -> None:
            await stuck.wait()

        await world.fleet.submit("sesn_stuck", body)
        async with asyncio.timeout(10):
            await end(world, grace_seconds=0.1)
        assert world.hands.drain.over.is_set()


def test_to_hurry_is_to_begin_too() -> None:
    drain = Drain()
    drain.hurry()
    assert (drain.begun.is_set(), drain.over.is_set()) == (True, True)

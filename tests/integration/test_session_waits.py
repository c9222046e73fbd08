"""What a session waits for is seen, and what happens is counted: whole sessions, brain in memory."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from handiwork.config import SessionSettings
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.session import (
    BrainUnreached,
    Interrupted,
    SessionState,
    ToolConfirmed,
    ToolSettled,
    Waiting,
)
from handiwork.observe.metrics import Census
from handiwork.sessions.runner import MAX_REFUSED_RESULTS
from session_world import World, call, text, until


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def idle_soon(world: World, seconds: float = 0.05) -> None:
    world.settings = msgspec.structs.replace(
        world.settings, sessions=SessionSettings(idle_seconds=seconds)
    )


async def _settled(world: World, id_: str, state: str = "posted") -> bool:
    entry = await world.store.ledger.get("sesn_1", id_)
    return entry is not None and entry.state == state


async def _has(world: World, kind: str) -> bool:
    return kind in await world.kinds()


async def _waits(world: World, *kinds: str) -> tuple[Waiting, ...]:
    """Wait until the stored session waits for exactly these, in order."""

    async def reached() -> bool:
        found = await world.store.sessions.list()
        return bool(found) and [one.kind.value for one in found[0].waiting] == list(kinds)

    await until(reached)
    return (await world.store.sessions.get("sesn_1")).waiting


async def test_what_a_session_waits_for_is_kept_with_it_until_it_is_over(world: World) -> None:
    world.agent(custom_tools=("theirs",))
    async with world:
        world.brain.say(
            "sesn_1", call("a", permission="ask"), call("b", name="theirs", custom=True)
        )
        declared, asked, pending = await _waits(
            world, "unserved_tool", "confirmation", "unserved_tool"
        )
        assert (declared.name, declared.tool_use_id) == ("theirs", "")
        assert (asked.name, asked.tool_use_id) == ("bash", "a")
        assert (pending.name, pending.tool_use_id) == ("theirs", "b")
        world.brain.emit("sesn_1", ToolConfirmed(tool_use_id="a", allowed=True))
        world.brain.emit("sesn_1", ToolSettled(tool_use_id="b"))
        await _waits(world, "unserved_tool")
        assert "session.waits_no_more" in await world.kinds()


async def test_a_held_call_is_held_again_after_a_restart_since_the_same_time(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo ran", permission="ask"))
        (before,) = await _waits(world, "confirmation")
    assert (await world.store.sessions.get("sesn_1")).waiting == (before,)
    async with world:
        await until(lambda: _count(world, "tool.held", 2))
        assert await _waits(world, "confirmation") == (before,)
        world.brain.emit("sesn_1", ToolConfirmed(tool_use_id="a", allowed=True))
        assert text((await world.posted(1))[0]) == "ran"
        await _waits(world)


async def _count(world: World, kind: str, count: int) -> bool:
    return (await world.kinds()).count(kind) == count


async def test_a_confirmation_given_while_nobody_listened_is_found(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo ran", permission="ask"))
        await _waits(world, "confirmation")
    world.brain.emit("sesn_1", ToolConfirmed(tool_use_id="a", allowed=True))
    async with world:
        assert text((await world.posted(1))[0]) == "ran"


async def test_a_denied_call_stays_denied_after_a_restart(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo ran", permission="ask"))
        await _waits(world, "confirmation")
        world.brain.emit("sesn_1", ToolConfirmed(tool_use_id="a", allowed=False))
        await until(lambda: _has(world, "tool.rejected"))
        await _waits(world)
    async with world:
        await until(lambda: _count(world, "tool.rejected", 2))
        world.brain.emit("sesn_1", ToolSettled(tool_use_id="a"))
        world.brain.say("sesn_1", call("b"))
        assert [result.tool_use_id for result in await world.posted(1)] == ["b"]


async def test_a_call_that_nobody_confirms_keeps_its_session(world: World) -> None:
    idle_soon(world)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", permission="ask"))
        await _waits(world, "confirmation")
        await asyncio.sleep(0.2)
        assert (await world.store.sessions.get("sesn_1")).state is SessionState.ACTIVE
        assert await world.store.ledger.get("sesn_1", "a") is None


async def test_a_refused_session_waits_for_what_refuses_it(world: World) -> None:
    world.agent()
    world.driver.broken = SandboxUnavailableError("no user namespaces")
    idle_soon(world)
    async with world:
        world.brain.say("sesn_1")
        await until(lambda: len(world.brain.stops) == 1)
        (wait,) = await _waits(world, "sandbox")
        assert wait.reason == "no user namespaces"
        world.driver.broken = None
        world.brain.say("sesn_1", call("b"))
        await world.posted(1)
        await _waits(world)


async def test_a_brain_that_cannot_be_reached_is_told(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1")
        await world.session_in("active")
        world.brain.emit("sesn_1", BrainUnreached(reason="503"))
        (wait,) = await _waits(world, "brain")
        assert wait.reason == "503"
        world.brain.break_streams("sesn_1")
        await _waits(world)


async def test_a_refused_result_is_kept_with_the_session(world: World) -> None:
    world.agent()
    world.brain.refuse = "400: no such call"
    async with world:
        ids = [f"call_{number}" for number in range(MAX_REFUSED_RESULTS + 1)]
        for id_ in ids:
            world.brain.say("sesn_1", call(id_))
        await until(lambda: _settled(world, ids[-1], "refused"))
        await until(lambda: _refused_last(world, ids[-1]))
    session = await world.store.sessions.get("sesn_1")
    assert [one.tool_use_id for one in session.refused_results] == ids[1:]
    assert {one.reason for one in session.refused_results} == {"400: no such call"}


async def _refused_last(world: World, id_: str) -> bool:
    refused = (await world.store.sessions.get("sesn_1")).refused_results
    return bool(refused) and refused[-1].tool_use_id == id_


async def test_an_interrupt_while_nobody_listened_is_found_when_one_does(world: World) -> None:
    world.agent()
    async with world:
        at = datetime.now(UTC).isoformat()
        world.brain.say("sesn_1", call("a", "sleep 60", processed_at=at))
        await until(lambda: _has(world, "tool.started"))
        world.brain.miss("sesn_1", Interrupted(processed_at=datetime.now(UTC)))
        world.brain.break_streams("sesn_1")
        await until(lambda: _settled(world, "a", "refused"))
        world.brain.say("sesn_1", call("b", "echo on"))
        assert text((await world.posted(1))[0]).endswith("on")


async def test_what_happens_is_counted(world: World) -> None:
    world.agent(custom_tools=("theirs",))
    async with world:
        world.brain.say(
            "sesn_1", call("a"), call("b", "false"), call("c", name="theirs", custom=True)
        )
        await world.posted(2)
        await _waits(world, "unserved_tool", "unserved_tool")
        counted = _counted(world)
        assert counted["handiwork_leases_held"] == 1
        assert counted["handiwork_session_waits", "unserved_tool"] == 2
        assert counted["handiwork_polls_total", "work"] == 1
        world.brain.say("sesn_1", call("d", "sleep 60"))
        await until(lambda: _counted(world)["handiwork_tool_calls_running"] == 1)
        world.brain.emit("sesn_1", Interrupted(processed_at=datetime.now(UTC)))
        await until(lambda: _counted(world)["handiwork_tool_calls_running"] == 0)
        world.brain.lose("sesn_1")
        await world.session_in("lost")
    counted = _counted(world)
    outcomes = {
        key[1:]: count for key, count in counted.items() if key[0] == "handiwork_tool_calls_total"
    }
    assert outcomes == {
        ("ok", "bash"): 1,
        ("error", "bash"): 1,
        ("unserved", "custom"): 1,
        ("interrupted", "bash"): 1,
    }
    assert counted["handiwork_result_posts_total", "taken"] == 2
    assert counted["handiwork_interrupts_total"] == 1
    assert (counted["handiwork_leases_held"], counted["handiwork_leases_lost_total"]) == (0, 1)
    assert counted["handiwork_session_waits", "unserved_tool"] == 0
    assert counted["handiwork_claims_total"] == 1


def _counted(world: World) -> dict[Any, float]:
    text = world.metrics.text(Census(), datetime.now(UTC)).decode()
    # Labels stand in the order of their names.
    return {
        (sample.name, *sample.labels.values()) if sample.labels else sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }

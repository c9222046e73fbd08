"""One session, first to last, on a brain in memory and host programs as sandboxes."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from handiwork.config import SessionSettings
from handiwork.model.agent import AgentSettings
from handiwork.model.errors import BrainRefusedError, SandboxUnavailableError
from handiwork.model.placeholder import Credential
from handiwork.model.secret import SealedSecret
from handiwork.model.session import (
    BrainReached,
    BrainSession,
    BrainSessionEnded,
    BrainUnreached,
    Interrupted,
    Session,
    SessionState,
    ToolCalled,
    ToolConfirmed,
    ToolSettled,
    TurnIdle,
    WorkItem,
)
from handiwork.model.tool import text_result
from handiwork.observe.metrics import Census
from handiwork.sessions.calls import CUT_SHORT
from handiwork.sessions.runner import FAULT
from handiwork.testing.brain import FakeBrain
from session_world import World, call, clock, text, until


def idle_soon(world: World, seconds: float = 0.05) -> None:
    world.settings = msgspec.structs.replace(
        world.settings, sessions=SessionSettings(idle_seconds=seconds)
    )


async def test_a_call_is_run_posted_and_settled(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo hi; pwd"))
        (result,) = await world.posted(1)
        assert text(result).startswith("hi\n")
        await until(lambda: _settled(world, "a"))
        session = await world.session_in("active")
        assert (session.agent_id, session.tier) == ("agent_1", "namespace")
        assert list(world.boundary.bindings) == [session.sandbox_id]
        assert world.boundary.bindings[session.sandbox_id].ca_id == "sesn_1"
        await until(lambda: _has(world, "tool.finished"))
    assert await world.kinds() == [
        "session.claimed",
        "session.starting",
        "sandbox.created",
        "session.active",
        "tool.started",
        "tool.finished",
        "turn.ended",
        "session.stopped",
    ]
    assert world.boundary.bindings == {}


async def _settled(world: World, id_: str, state: str = "posted") -> bool:
    entry = await world.store.ledger.get("sesn_1", id_)
    return entry is not None and entry.state == state


async def _has(world: World, kind: str) -> bool:
    return kind in await world.kinds()


async def test_what_a_session_brings_stands_in_its_sandbox_until_it_is_withdrawn(
    world: World,
) -> None:
    idle_soon(world)
    sealed = SealedSecret(
        name="k", version=1, hosts=("a",), ephemeral_key=b"e", nonce=b"n", ciphertext=b"c"
    )
    world.agent(vault_ids=("vlt_1",))
    world.brain.bring(
        "sesn_1",
        Credential(variable="TOKEN", sealed=sealed),
        Credential(variable="PATH", sealed=sealed),
    )
    async with world:
        world.brain.say("sesn_1", call("a"))
        await world.posted(1)
        shown = world.driver.specs[-1].env["TOKEN"]
        assert list(world.driver.specs[-1].env) == ["TOKEN"]
        (box,) = world.boundary.grants
        (stands,) = world.boundary.grants[box].placeholders
        assert (stands.variable, stands.text, stands.sealed) == ("TOKEN", shown, sealed)
        await world.session_in("sleeping")
        assert "credential.refused" in await world.kinds()
        world.brain.say("sesn_1", call("b"))
        await world.posted(2)
        assert world.driver.specs[-1].env == {"TOKEN": shown}
        await world.session_in("sleeping")
        world.brain.bring("sesn_1")
        world.brain.say("sesn_1", call("c"))
        await world.posted(3)
        assert world.driver.specs[-1].env == {}
        assert world.boundary.grants[box].placeholders == ()


async def test_idle_sleeps_and_the_next_message_finds_the_files(world: World) -> None:
    idle_soon(world)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo kept > f; X=1"))
        await world.posted(1)
        session = await world.session_in("sleeping")
        await until(lambda: len(world.brain.stops) == 1)
        assert world.driver.live == {}
        assert world.boundary.bindings == {}
        world.brain.say("sesn_1", call("b", "cat f; echo [$X]"))
        assert text((await world.posted(2))[1]) == "kept\n[]"
        again = await world.store.sessions.get("sesn_1")
        assert again.sandbox_id == session.sandbox_id
        assert again.work_id != session.work_id


async def test_an_open_turn_is_not_idle(world: World) -> None:
    idle_soon(world)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", name="not_ours", custom=True))
        await until(lambda: _has(world, "tool.unserved"))
        await asyncio.sleep(0.2)
        assert (await world.session_in("active")).state is SessionState.ACTIVE
        assert world.brain.posts == []
        world.brain.emit("sesn_1", ToolSettled(tool_use_id="a"))
        world.brain.emit("sesn_1", TurnIdle(stop_reason="end_turn"))
        await world.session_in("sleeping")


async def test_a_running_call_is_not_idle(world: World) -> None:
    idle_soon(world)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "sleep 0.3; echo done"))
        world.brain.emit("sesn_1", TurnIdle(stop_reason="end_turn"))
        assert text((await world.posted(1))[0]) == "done"
        await world.session_in("sleeping")


async def test_who_cannot_follow_the_brain_is_not_idle(world: World) -> None:
    idle_soon(world)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "sleep 0.1"))
        await world.session_in("active")
        world.brain.emit("sesn_1", BrainUnreached(reason="away"))
        await world.posted(1)
        await asyncio.sleep(0.3)
        assert (await world.session_in("active")).state is SessionState.ACTIVE
        world.brain.emit("sesn_1", BrainReached())
        await world.session_in("sleeping")


async def test_calls_of_one_thread_keep_their_order_and_others_run_beside(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say(
            "sesn_1",
            call("a", "sleep 0.3; echo first >> f"),
            call("b", "echo second >> f; cat f"),
            call("c", "echo beside", thread_id="sthr_1"),
        )
        posts = await world.posted(3)
        assert [result.tool_use_id for result in posts] == ["c", "a", "b"]
        assert text(posts[2]) == "first\nsecond"


async def test_a_call_is_run_once_however_often_it_is_told(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo x >> f"), call("w", "sleep 0.3; cat f"))
        await until(lambda: _has(world, "tool.started"))
        world.brain.break_streams("sesn_1")
        posts = await world.posted(2)
        assert text(posts[1]) == "x"


@pytest.mark.parametrize(
    ("allowed", "kinds"),
    [(True, ["tool.held", "tool.confirmed"]), (False, ["tool.held", "tool.rejected"])],
)
async def test_a_call_that_asks_is_held(world: World, allowed: bool, kinds: list[str]) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo ran", permission="ask"))
        await until(lambda: _has(world, "tool.held"))
        assert await world.store.ledger.get("sesn_1", "a") is None
        world.brain.emit("sesn_1", ToolConfirmed(tool_use_id="a", allowed=allowed))
        await until(lambda: _has(world, kinds[1]))
        if allowed:
            assert text((await world.posted(1))[0]) == "ran"
        else:
            assert world.brain.posts == []


@pytest.mark.parametrize("permission", ["deny", "unknown"])
async def test_what_is_not_allowed_never_runs(world: World, permission: str) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", permission=permission), call("b"))
        assert [result.tool_use_id for result in await world.posted(1)] == ["b"]
        assert await world.store.ledger.get("sesn_1", "a") is None


async def test_an_early_confirmation_is_kept(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1")
        await world.session_in("active")
        world.brain.emit("sesn_1", ToolConfirmed(tool_use_id="a", allowed=True))
        world.brain.say("sesn_1", call("a", "echo ran", permission="ask"))
        assert text((await world.posted(1))[0]) == "ran"


async def test_an_interrupt_cancels_and_settles_and_the_session_goes_on(world: World) -> None:
    world.agent()
    async with world:
        at = datetime.now(UTC).isoformat()
        world.brain.say("sesn_1", call("a", "sleep 60", processed_at=at))
        await until(lambda: _has(world, "tool.started"))
        world.brain.emit("sesn_1", Interrupted(processed_at=datetime.now(UTC)))
        await until(lambda: _settled(world, "a", "refused"))
        assert world.brain.posts == []
        world.brain.say("sesn_1", call("b", "echo on"))
        assert text((await world.posted(1))[0]).endswith("\non")


async def test_a_started_call_of_a_former_run_is_never_run_again(world: World) -> None:
    world.agent()
    await world.store.ledger.start(call("a", "touch ran"), datetime.now(UTC))
    async with world:
        world.brain.say("sesn_1", call("a", "touch ran"))
        (result,) = await world.posted(1)
        assert result.is_error
        assert text(result) == CUT_SHORT
        await until(lambda: _settled(world, "a"))


@pytest.mark.parametrize("settled", [False, True])
async def test_a_stored_result_of_a_former_run_is_posted_again(world: World, settled: bool) -> None:
    world.agent()
    now, first = datetime.now(UTC), call("a", "touch ran")
    await world.store.ledger.start(first, now)
    await world.store.ledger.store("sesn_1", text_result(first, "kept"), now)
    if settled:
        await world.store.ledger.settle("sesn_1", "a", now)
    async with world:
        world.brain.say("sesn_1", first)
        (result,) = await world.posted(1)
        assert text(result) == "kept"


async def test_a_refused_result_of_a_former_run_stays_refused(world: World) -> None:
    world.agent()
    now, first = datetime.now(UTC), call("a")
    await world.store.ledger.start(first, now)
    await world.store.ledger.store("sesn_1", text_result(first, "kept"), now)
    await world.store.ledger.settle("sesn_1", "a", now, refused="too late")
    async with world:
        world.brain.say("sesn_1", first, call("b"))
        assert [result.tool_use_id for result in await world.posted(1)] == ["b"]


async def test_what_the_brain_has_answered_meanwhile_is_settled(world: World) -> None:
    world.agent()
    now = datetime.now(UTC)
    for id_ in ("a", "b"):
        await world.store.ledger.start(call(id_), now)
    await world.store.ledger.store("sesn_1", text_result(call("a"), "kept"), now)
    async with world:
        for id_ in ("a", "b"):
            world.brain.emit("sesn_1", ToolSettled(tool_use_id=id_))
        world.brain.say("sesn_1")
        await until(lambda: _settled(world, "a"))
        await until(lambda: _settled(world, "b", "refused"))
        assert world.brain.posts == []


async def test_a_result_refused_for_good_is_told_and_not_repeated(world: World) -> None:
    world.agent()
    world.brain.refuse = "400: no such call"
    async with world:
        world.brain.say("sesn_1", call("a"))
        await until(lambda: _settled(world, "a", "refused"))
        assert await _has(world, "tool.result_refused")
        world.brain.refuse = ""
        world.brain.break_streams("sesn_1")
        world.brain.say("sesn_1", call("b"))
        assert [result.tool_use_id for result in await world.posted(1)] == ["b"]


async def test_a_lost_lease_ends_all_and_posts_nothing(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "sleep 0.5"))
        await until(lambda: _has(world, "tool.started"))
        world.brain.lose("sesn_1")
        await world.session_in("lost")
        assert world.driver.live == {}
        assert world.brain.stops == []
        assert world.brain.posts == []
        # Offered again, the call is answered and does not run again.
        world.brain.offer("sesn_1")
        assert text((await world.posted(1))[0]) == CUT_SHORT


async def test_the_brain_may_stop_a_session(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a"))
        await world.posted(1)
        world.brain.ask_to_stop("sesn_1")
        session = await world.session_in("stopped")
        assert session.reason == "the brain stopped its work item"
        assert world.driver.live == {}


async def test_the_operator_stops_what_the_turn_runs_and_all_it_asks_for_later(
    world: World,
) -> None:
    idle_soon(world)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "sleep 60"), call("b", name="other", custom=True))
        await until(lambda: _has(world, "tool.started"))
        (box,) = world.driver.live.values()
        assert await world.dispatcher.stop("sesn_1")
        assert await box.closed() == ""
        # The turn is open, so the brain offers the session again: it is told, not served.
        assert text((await world.posted(1))[0]) == CUT_SHORT
        world.brain.emit("sesn_1", ToolCalled(call=call("c", "touch ran")))
        assert "stopped by the operator" in text((await world.posted(2))[1])
        world.brain.emit("sesn_1", ToolSettled(tool_use_id="b"))
        world.brain.emit("sesn_1", TurnIdle(stop_reason="end_turn"))
        await until(lambda: len(world.brain.stops) == 2)
        assert "operator" in (await world.store.sessions.get("sesn_1")).reason
        # The next message starts a turn of its own.
        world.brain.say("sesn_1", call("d", "ls; echo served"))
        assert text((await world.posted(3))[2]) == "served"


async def test_a_stop_between_turns_leaves_the_next_turn_alone(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a"))
        await world.posted(1)
        await until(lambda: _settled(world, "a"))
        assert await world.dispatcher.stop("sesn_1")
        assert not await world.dispatcher.stop("sesn_1")
        session = await world.store.sessions.get("sesn_1")
        assert (session.state, session.reason) == (
            SessionState.STOPPED,
            "it was stopped by the operator",
        )
        world.brain.say("sesn_1", call("b", "echo on"))
        assert text((await world.posted(2))[1]) == "on"


async def test_the_end_of_the_session_deletes_its_sandbox(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a"))
        await world.posted(1)
        world.brain.emit("sesn_1", BrainSessionEnded(reason="deleted"))
        session = await world.session_in("ended")
        assert await world.driver.leftovers() == []
        record = await world.store.sandboxes.get(session.sandbox_id)
        assert record.state.value == "gone"


async def test_a_session_that_is_over_is_not_served(world: World) -> None:
    world.agent(terminated=True)
    async with world:
        world.brain.say("sesn_1", call("a"))
        await world.session_in("ended")
        assert world.driver.specs == []
        assert world.brain.posts == []


async def test_a_missing_policy_refuses_with_the_reason(world: World) -> None:
    world.agent()
    now = datetime.now(UTC)
    await world.store.agents.put(
        AgentSettings(
            environment_id=world.brain.environment_id,
            agent_id="agent_1",
            policy="strict",
            updated_at=now,
        )
    )
    idle_soon(world)
    async with world:
        world.brain.say("sesn_1", call("a", "touch ran"))
        (result,) = await world.posted(1)
        assert result.is_error
        assert "the agent policy 'strict' does not exist" in text(result)
        session = await world.session_in("refused")
        assert "the agent policy 'strict' does not exist" in session.reason
        assert world.driver.specs == []
        assert world.boundary.bindings == {}
        await until(lambda: len(world.brain.stops) == 1)
        assert (await world.store.sessions.get("sesn_1")).state is SessionState.REFUSED


async def test_a_sandbox_that_cannot_start_refuses_and_the_next_message_tries_again(
    world: World,
) -> None:
    world.agent()
    world.driver.broken = SandboxUnavailableError("no user namespaces")
    idle_soon(world)
    async with world:
        world.brain.say("sesn_1", call("a"))
        assert "no user namespaces" in text((await world.posted(1))[0])
        await until(lambda: len(world.brain.stops) == 1)
        world.driver.broken = None
        world.brain.say("sesn_1", call("b", "echo now"))
        assert text((await world.posted(2))[1]) == "now"


async def test_a_sandbox_that_dies_wakes_for_the_next_call(world: World) -> None:
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo kept > f"))
        await world.posted(1)
        (box,) = world.driver.live.values()
        await box.die("killed")
        await until(lambda: not world.boundary.bindings)
        world.brain.say("sesn_1", call("b", "cat f"))
        told, output = (await world.posted(2))[1].content
        assert output.text == "kept"
        assert "the sandbox died, and all its processes with it" in told.text


async def test_a_restore_that_fails_never_starts_afresh(world: World) -> None:
    world.agent()
    idle_soon(world)
    async with world:
        world.brain.say("sesn_1", call("a", "echo kept > f"))
        await world.posted(1)
        await until(lambda: len(world.brain.stops) == 1)
        world.driver.broken = SandboxUnavailableError("disk")
        world.brain.say("sesn_1", call("b", "cat f"))
        assert "disk" in text((await world.posted(2))[1])
        world.driver.broken = None
        await until(lambda: len(world.brain.stops) == 2)
        world.brain.say("sesn_1", call("c", "cat f"))
        assert text((await world.posted(3))[2]) == "kept"


async def test_a_brain_that_refuses_to_describe_stops_with_the_reason(world: World) -> None:
    world.agent()
    world.brain.describing = BrainRefusedError("400: no")
    async with world:
        world.brain.say("sesn_1")
        assert (await world.session_in("stopped")).reason == "400: no"


async def test_declared_tools_that_nobody_has_are_told(world: World) -> None:
    world.agent(custom_tools=("theirs",))
    async with world:
        world.brain.say("sesn_1")
        await until(lambda: _has(world, "tools.unserved"))


async def test_sessions_beyond_the_machines_room_are_refused_and_say_so(world: World) -> None:
    for number in range(5):
        world.agent(f"sesn_{number}")
    async with world:
        for number in range(5):
            id_ = f"sesn_{number}"
            world.brain.say(id_, call(f"call_{number}", session_id=id_))
        posts = await world.posted(5)
        assert sum("4 sandboxes run already" in text(result) for result in posts) == 1


async def test_a_fault_of_ours_is_told_on_the_session_and_ends_no_other(world: World) -> None:
    world.agent()
    world.agent("sesn_2")

    async def faulty(work: WorkItem) -> BrainSession:
        if work.session_id == "sesn_1":
            raise RuntimeError("a key: sk-0123456789")
        return await describe(work)

    describe, world.brain.describe = world.brain.describe, faulty  # type: ignore[method-assign]
    async with world:
        world.brain.say("sesn_1", call("a"))
        session = await world.session_in("stopped")
        assert session.reason == f"{FAULT} (RuntimeError)"
        world.brain.say("sesn_2", call("b", session_id="sesn_2"))
        await world.posted(1)
    assert world.brain.stops


async def test_a_session_of_another_environment_is_not_given_away(world: World) -> None:
    """Another brain may name any session: what is in its workspace is not that brain's to read."""
    idle_soon(world)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a", "echo private > f"))
        await world.posted(1)
        session = await world.session_in("sleeping")
        theirs = msgspec.structs.replace(session, environment_id="env_other")
        await world.store.sessions.save(theirs)
        world.brain.say("sesn_1", call("b", "cat f"))
        await until(lambda: len(world.brain.stops) >= 2)
        assert len(world.brain.posts) == 1
        assert await world.store.sessions.get("sesn_1") == theirs
        assert world.driver.live == {}


async def test_another_environments_item_does_not_end_the_session_that_runs(world: World) -> None:
    world.agent()
    async with world:
        now = clock()
        theirs = Session(
            id="sesn_1",
            environment_id="env_other",
            state=SessionState.ACTIVE,
            work_id="work_1",
            created_at=now,
            updated_at=now,
        )
        await world.store.sessions.save(theirs)
        over = asyncio.Event()
        await world.fleet.submit("env_other/sesn_1", over.wait)
        world.brain.say("sesn_1", call("a"))
        await until(lambda: len(world.brain.stops) >= 1)
        assert world.brain.posts == []
        assert await world.store.sessions.get("sesn_1") == theirs
        assert await world.fleet.stop("env_other/sesn_1")


async def test_a_sandbox_that_is_held_for_long_sleeps_after_all(world: World) -> None:
    """A snapshot of it takes longer than the session waits."""
    settings = SessionSettings(idle_seconds=0.05, stop_seconds=0.1)
    world.settings = msgspec.structs.replace(world.settings, sessions=settings)
    world.agent()
    async with world:
        world.brain.say("sesn_1", call("a"))
        await world.posted(1)
        session = await world.store.sessions.get("sesn_1")
        async with world.sandboxes.held(session.sandbox_id):
            await world.session_in("sleeping")
            await until(lambda: _has(world, "sandbox.not_asleep"))
            assert session.sandbox_id in world.driver.live
        await until(lambda: world.driver.live == {})


async def test_what_sessions_of_one_id_in_two_environments_wait_for_is_told_of_both(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other")
    other.brain, other.metrics = FakeBrain("env_other"), world.metrics
    other.environment = msgspec.structs.replace(other.environment, id="env_other")

    def told() -> int:
        lines = world.metrics.text(Census(), clock()).decode().splitlines()
        wanted = 'kind="unserved_tool"'
        (line,) = [one for one in lines if wanted in one and "_waits{" in one]
        return round(float(line.split()[-1]))

    async with world:
        async with other:
            for one in (world, other):
                one.agent()
                one.brain.say("sesn_1", call("a", name="not_ours", custom=True))
            await until(lambda: told() == 2)
        await until(lambda: told() == 1)

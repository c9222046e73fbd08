"""One call, whole: a task over REST, a session in a real sandbox, the answer, files, cost."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest

from brain_process import call, script
from control_plane_process import ControlPlane, running, start
from handiwork import Handiwork
from handiwork.model.errors import ConfigError, ConflictError
from handiwork.model.policy import AllowRule, Match, Policy
from handiwork.model.run import Run, RunEvent, RunState
from handiwork.model.wire import RunBody

SHORT_LEASE = "[sessions]\nlease_seconds = 4\n"
WORK = script(
    call("bash", save="made", command="mkdir -p outputs/a && echo hi | tee outputs/a/b.txt"),
    {"say": "made ${made}"},
)
SLOW = script({"say": "begun"}, call("bash", command="sleep 50"), {"say": "never said"})


@pytest.fixture
async def hw(shared_plane: ControlPlane) -> AsyncIterator[Handiwork]:
    async with Handiwork(socket=shared_plane.socket) as hw:
        yield hw


def task(words: str = "go", system: str = WORK, **more: object) -> RunBody:
    return RunBody(task=words, model="scripted", system=system, **more)  # type: ignore[arg-type]


async def test_a_task_and_its_answer(hw: Handiwork) -> None:
    run = await hw.runs.start(task())
    assert (run.state, run.stop_reason, run.reason) == (RunState.ENDED, "end_turn", "")
    assert run.message == "made hi"
    assert [(file.path, file.size) for file in run.files] == [("a/b.txt", 3)]
    assert run.list_cost is None
    assert run.duration_seconds > 0
    assert (await hw.sessions.get(run.session_id)).id == run.session_id
    assert await hw.runs.get(run.id) == run
    again = await hw.runs.start(task("once more"))
    assert (again.agent_id, again.session_id != run.session_id) == (run.agent_id, True)
    by_id = await hw.runs.start(RunBody(task="by its id", agent=run.agent_id))
    assert (by_id.state, by_id.message) == (RunState.ENDED, "made hi")
    assert [one.id for one in await hw.runs.list(limit=3)] == [by_id.id, again.id, run.id]


async def test_events_as_they_come(hw: Handiwork) -> None:
    async with aclosing(hw.runs.stream(task())) as told:
        first, *events, last = [each async for each in told]
    assert isinstance(first, Run)
    assert isinstance(last, Run)
    assert (first.state, last.state, first.id) == (RunState.RUNNING, RunState.ENDED, last.id)
    kinds = [event.kind for event in events if isinstance(event, RunEvent)]
    assert [kind for kind in kinds if not kind.startswith(("session.", "span."))] == [
        "user.message",
        "agent.tool_use",
        "user.tool_result",
        "agent.message",
    ]
    async with aclosing(hw.runs.follow(last.id)) as told:
        again = [each async for each in told]
    assert again[1:-1] == events


async def test_a_caller_who_leaves_does_not_end_the_run(hw: Handiwork) -> None:
    words = script(call("bash", command="sleep 1; echo done"), {"say": "went on"})
    async with aclosing(hw.runs.stream(task(system=words))) as told:
        run = await anext(told)
    assert isinstance(run, Run)
    assert (await hw.runs.get(run.id, wait_seconds=20)).message == "went on"


async def test_a_run_that_takes_too_long(hw: Handiwork) -> None:
    run = await hw.runs.start(task(system=SLOW, timeout_seconds=2))
    assert (run.state, run.reason) == (RunState.TIMED_OUT, "it took more than 2 s")
    assert run.message == "begun"
    assert run.duration_seconds < 15


async def test_a_run_that_is_cancelled(hw: Handiwork) -> None:
    run = await hw.runs.start(task(system=SLOW, wait_seconds=0))
    assert run.state is RunState.RUNNING
    cancelled = await hw.runs.cancel(run.id)
    assert (cancelled.state, cancelled.reason) == (RunState.CANCELLED, "it was cancelled")
    with pytest.raises(ConflictError, match="cancelled already"):
        await hw.runs.cancel(run.id)


async def test_a_run_has_the_policy_that_its_caller_chose(hw: Handiwork) -> None:
    rule = AllowRule(id="a", match=Match(hosts=("no.test",), methods=("PUT",)))
    await hw.policies.put(Policy(name="of-the-run", rules=(rule,)))
    ask = script(call("bash", command="curl -ksS -m 5 https://no.test/"), {"say": "asked"})
    run = await hw.runs.start(task(system=ask, policy="of-the-run"))
    assert "session:of-the-run/default" in await rules_asked(hw, run)
    without = await hw.runs.start(task(system=ask))
    assert "session:of-the-run/default" not in await rules_asked(hw, without)


async def rules_asked(hw: Handiwork, run: Run) -> list[str]:
    """The rules that refused what the run's session sent."""
    async with asyncio.timeout(10):
        while not (decided := await hw.audit.query(session_id=run.session_id)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert not any(record.allowed for record in decided)
    return [rule for record in decided for rule in record.rules]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (RunBody(task="go"), "an agent or a model"),
        (RunBody(task="go", agent="a", model="b"), "an agent or a model"),
        (task(tier="cloud"), "no tier"),
        (task(policy="none"), "no policy"),
        (task(environment="env_elsewhere"), "--key-file"),
        (task(system="no script"), "script"),
    ],
)
async def test_what_cannot_be_started(hw: Handiwork, body: RunBody, told: str) -> None:
    before = len(await hw.runs.list())
    with pytest.raises(ConfigError, match=told):
        await hw.runs.start(body)
    assert len(await hw.runs.list()) == before


async def test_a_run_goes_on_after_a_crash_of_ours(tmp_path: Path) -> None:
    words = script(call("bash", command="sleep 2; echo done"), {"say": "survived"})
    with running(tmp_path, config=SHORT_LEASE) as plane:
        async with Handiwork(socket=plane.socket) as hw:
            run = await hw.runs.start(task(system=words, wait_seconds=0))
            async with asyncio.timeout(20):
                while not (await hw.sessions.list(state="active")):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        plane.kill()
        again = start(tmp_path, config=SHORT_LEASE)
        try:
            async with Handiwork(socket=again.socket) as hw:
                ended = await hw.runs.get(run.id, wait_seconds=60)
        finally:
            again.stop()
    assert (ended.state, ended.message) == (RunState.ENDED, "survived"), ended


async def test_a_run_whose_brain_has_forgotten_it_is_lost(tmp_path: Path) -> None:
    with running(tmp_path) as plane:
        async with Handiwork(socket=plane.socket) as hw:
            run = await hw.runs.start(task(system=SLOW, wait_seconds=0))
        plane.kill()
        for file in (plane.data / "local-brain").glob("brain.db*"):
            file.unlink()
        again = start(tmp_path)
        try:
            async with Handiwork(socket=again.socket) as hw:
                lost = await hw.runs.get(run.id, wait_seconds=30)
        finally:
            again.stop()
    assert lost.state is RunState.LOST
    assert "does not know" in lost.reason
    assert json.loads(json.dumps(lost.reason))

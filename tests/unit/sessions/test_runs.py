"""What a run's events come to, and what is written down of a run that cannot be followed."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from brain_process import BrainProcess, script
from handiwork.brains.conversation import Conversation, conversation
from handiwork.model.errors import ConfigError, ConflictError, SandboxUnavailableError
from handiwork.model.run import Run, RunEvent, RunState
from handiwork.model.wire import OutputFile, RunBody
from handiwork.sessions import runs
from handiwork.sessions.runs import FAULT, Runs, Turn
from handiwork.testing.store import MemoryStore

NOW = datetime.now(UTC)


def event(kind: str, text: str = "", stop_reason: str = "") -> RunEvent:
    return RunEvent(kind=kind, id="e", text=text, stop_reason=stop_reason)


def over(events: Sequence[RunEvent]) -> tuple[Turn, list[bool]]:
    turn = Turn()
    return turn, [turn.take(each) for each in events]


def test_a_turn_ends_with_the_rest_after_the_task() -> None:
    turn, ends = over(
        [
            event("session.status_idle", stop_reason="end_turn"),
            event("user.message"),
            event("agent.message", "first"),
            event("session.status_idle", stop_reason="requires_action"),
            event("agent.message", "last"),
            event("session.status_idle", stop_reason="end_turn"),
        ]
    )
    assert ends == [False] * 5 + [True]
    assert (turn.message, turn.stop_reason) == ("last", "end_turn")


@pytest.mark.parametrize("kind", ["session.status_terminated", "session.deleted"])
def test_a_session_that_is_gone_ends_the_turn(kind: str) -> None:
    turn, ends = over([event(kind)])
    assert (ends, turn.stop_reason) == ([True], kind)


def test_what_is_kept_of_an_answer_has_a_limit() -> None:
    turn, _ = over([event("agent.message", "x" * 10**6), event("session.error", "why")])
    assert (len(turn.message), turn.error) == (runs.MAX_MESSAGE_CHARS, "why")


async def files(_session_id: str) -> tuple[OutputFile, ...]:
    return (OutputFile(path="a", size=1, mtime_ns=2),)


def runs_of(
    store: MemoryStore, talk: Conversation | None, environment_id: str = "env_1", files=files
) -> Runs:
    return Runs(
        store=store, talk=talk, environment_id=environment_id, files=files, clock=lambda: NOW
    )


def kept(**changed: object) -> Run:
    given: dict[str, object] = {
        "id": "run_1",
        "session_id": "sesn_1",
        "environment_id": "env_1",
        "agent_id": "agent_1",
        "timeout_seconds": 60,
        "created_at": NOW - timedelta(seconds=5),
        "updated_at": NOW,
    }
    return Run(**(given | changed))  # type: ignore[arg-type]


async def test_without_a_brain_nothing_starts_and_what_ran_is_lost() -> None:
    store = MemoryStore()
    await store.runs.save(kept())
    await store.runs.save(kept(id="run_2", state=RunState.ENDED))
    async with runs_of(store, None) as served:
        with pytest.raises(ConfigError, match="local_brain"):
            await served.start(RunBody(task="go", model="scripted"))
        with pytest.raises(ConflictError, match="lost already"):
            await served.cancel("run_1")
    lost = await store.runs.get("run_1")
    assert (lost.state, lost.duration_seconds) == (RunState.LOST, 5.0)
    assert "not served here" in lost.reason
    assert (await store.runs.get("run_2")).state is RunState.ENDED


@pytest.fixture(scope="module")
def brain(tmp_path_factory: pytest.TempPathFactory):
    with BrainProcess.start(tmp_path_factory.mktemp("brain") / "brain.db") as brain:
        yield brain


def body(*steps: dict[str, object], **more: object) -> RunBody:
    return RunBody(task="go", model="scripted", system=script(*steps), **more)  # type: ignore[arg-type]


async def test_an_agent_is_made_once_and_found_again(brain: BrainProcess) -> None:
    store, agents = MemoryStore(), set()
    for _ in range(2):
        async with (
            conversation(base_url=brain.base_url, api_key=brain.api_key) as talk,
            runs_of(store, talk, brain.environment_id) as served,
        ):
            for _ in range(2):
                run = await served.start(body({"say": "once"}))
                ended = await served.wait(run.id, 20)
                agents.add(ended.agent_id)
                assert (ended.state, ended.message) == (RunState.ENDED, "once")
                assert ended.files == await files("")
            other = await served.start(body({"say": "twice"}))
            assert other.agent_id not in agents
            await served.wait(other.id, 20)
    assert len(agents) == 1


async def test_what_cannot_be_asked_for_at_the_end_is_told(brain: BrainProcess) -> None:
    async def asleep(_session_id: str) -> tuple[OutputFile, ...]:
        raise SandboxUnavailableError("the sandbox is sleeping")

    store = MemoryStore()
    async with (
        conversation(base_url=brain.base_url, api_key=brain.api_key) as talk,
        runs_of(store, talk, brain.environment_id, asleep) as served,
    ):
        run = await served.start(body({"say": "x"}))
        ended = await served.wait(run.id, 20)
        assert ended.reason == "its files are not known: the sandbox is sleeping"
        failed = await served.start(body({"fail": "out of ideas"}))
        told = await served.wait(failed.id, 20)
        assert (told.stop_reason != "end_turn", "out of ideas" in told.reason) == (True, True)


async def test_only_so_many_at_once(brain: BrainProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_RUNS", 1)
    monkeypatch.setattr(runs, "GRACE_SECONDS", 1.0)
    waits = body({"call": {"tool": "bash", "input": {"command": "true"}}})
    store = MemoryStore()
    async with (
        conversation(base_url=brain.base_url, api_key=brain.api_key) as talk,
        runs_of(store, talk, brain.environment_id) as served,
    ):
        run = await served.start(waits)
        with pytest.raises(ConflictError, match="1 runs are under way"):
            await served.start(waits)
        assert (await served.cancel(run.id)).state is RunState.CANCELLED
        left = await served.start(waits)
    assert (await store.runs.get(left.id)).state is RunState.RUNNING


async def test_a_brain_that_refuses_us_fails_the_run(brain: BrainProcess, tmp_path: Path) -> None:
    store = MemoryStore()
    await store.runs.save(kept(environment_id=brain.environment_id))
    async with (
        conversation(base_url=brain.base_url, api_key="sk-ant-wrong") as talk,
        runs_of(store, talk, brain.environment_id) as served,
    ):
        ended = await served.wait("run_1", 20)
    assert (ended.state, "API key" in ended.reason) == (RunState.FAILED, True)
    assert "sk-ant-wrong" not in ended.reason


async def test_a_fault_in_following_one_run_ends_no_other(
    brain: BrainProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def faulty(*_: object) -> None:
        raise RuntimeError("a defect")

    async with (
        conversation(base_url=brain.base_url, api_key=brain.api_key) as talk,
        runs_of(MemoryStore(), talk, brain.environment_id) as served,
    ):
        with monkeypatch.context() as patched:
            patched.setattr(served, "_outcome", faulty)
            run = await served.start(body({"say": "x"}))
            lost = await served.wait(run.id, 20)
        assert (lost.state, FAULT in lost.reason) == (RunState.LOST, True)
        run = await served.start(body({"say": "y"}))
        assert (await served.wait(run.id, 20)).state is RunState.ENDED

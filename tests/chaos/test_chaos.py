"""Sessions on a brain that misbehaves and an engine that is killed: the promises of a tool call.

`python tests/chaos/run.py --seed SEED --sessions COUNT --deaths RATE` plays a failed one again.
"""

import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos.judge import judge
from chaos.plan import DIE, Plan, story
from chaos.world import ControlPlane, play


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a name so short that a unix socket's address holds it."""
    with tempfile.TemporaryDirectory(prefix="hw-chaos-") as name:
        yield Path(name)


async def _problems(plan: Plan, count: int, place: Path, **more: object) -> list[str]:
    print(f"seed {plan.seed}, {count} sessions, deaths {plan.deaths}")
    run = await play(plan, count, place / "world", **more)
    verdict = judge(run)
    print(f"{run.seconds:.1f} s", dict(verdict.seen), dict(run.done))
    assert verdict.seen["faults"] > count
    return verdict.problems


@pytest.mark.timeout(120)
async def test_fifteen_sessions_end_and_nothing_runs_twice(place: Path) -> None:
    assert await _problems(Plan("fifteen", deaths=0.1), 15, place) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_whole_control_plane_that_is_killed_serves_every_session(place: Path) -> None:
    plan = Plan("control plane", deaths=0.08, stock=True)
    assert await _problems(plan, 8, place, engines=ControlPlane) == []


@pytest.mark.slow
@pytest.mark.timeout(2400)
async def test_five_hundred_sessions_end_and_nothing_runs_twice(place: Path) -> None:
    assert await _problems(Plan(secrets.token_hex(4)), 500, place) == []


@pytest.mark.timeout(120)
async def test_an_engine_without_a_ledger_is_noticed(place: Path) -> None:
    problems = await _problems(
        Plan("ledger", deaths=0.1), 8, place, sabotage="no ledger", session_seconds=25
    )
    assert any(problem.endswith("ran 2 times") for problem in problems)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_an_engine_that_never_reads_the_history_is_noticed(place: Path) -> None:
    problems = await _problems(
        Plan("history"), 8, place, sabotage="no reconcile", session_seconds=20
    )
    assert any("did not end" in problem for problem in problems)


def test_a_seed_plans_the_same_again() -> None:
    names = [("post", f"s{session}", number) for session in range(200) for number in range(6)]

    def planned(seed: str) -> list[object]:
        plan = Plan(seed)
        faults = [plan.request(*name) for name in names]
        events = [plan.event(subject, 0, number) for _, subject, number in names]
        return [*faults, *events, *(story(plan, index) for index in range(100))]

    assert planned("a") == planned("a") != planned("b")
    kinds = {fault.kind for fault in planned("a")[: len(names)] if fault}
    assert kinds >= {"status", "reset", "half_close", "lost", "cut", "malformed", "slow", *DIE}
    assert not any(Plan("a", calm=True).request(*name) for name in names)

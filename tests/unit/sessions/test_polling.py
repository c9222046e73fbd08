"""The poll budget, minute by minute; `tests/property/test_polling.py` holds it under any order."""

import itertools

import pytest

from handiwork.sessions.polling import PollBudget


def run(budget: PollBudget, names: list[str], seconds: float, open_seconds: float = 1.0):
    """Poll as dispatchers do, each poll open for a while; when each environment's began."""
    now, free = 0.0, dict.fromkeys(names, 0.0)
    begun: dict[str, list[float]] = {name: [] for name in names}
    while now < seconds:
        for name in names:
            if free[name] <= now and budget.wait_seconds(name, now) <= 0:
                budget.polled(name, now)
                begun[name].append(now)
                free[name] = now + open_seconds
        now += 0.01
    return begun


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_few_environments_are_watched_all_the_time(count: int) -> None:
    names = [f"env_{n}" for n in range(count)]
    begun = run(PollBudget(300), names, 60)
    assert all(len(times) >= 59 for times in begun.values())


def test_questions_are_a_tenth_of_the_budget_and_count_in_it() -> None:
    budget, now, asked, polled = PollBudget(60), 0.0, list[float](), list[float]()
    while now < 180:
        if budget.ask_wait_seconds(now) <= 0:
            budget.asked(now)
            asked.append(now)
        budget.stir("env_1", now)
        if budget.wait_seconds("env_1", now) <= 0:
            budget.polled("env_1", now)
            polled.append(now)
        now += 0.25
    assert 15 <= len(asked) <= 19
    begun = sorted([*asked, *polled])
    assert all(len([b for b in begun if at <= b < at + 60]) <= 60 for at in begun)
    assert len(polled) >= 150


def test_five_environments_are_never_unwatched_for_300_ms() -> None:
    begun = run(PollBudget(300), [f"env_{n}" for n in range(5)], 120)
    for times in begun.values():
        gaps = [later - earlier - 1.0 for earlier, later in itertools.pairwise(times)]
        assert max(gaps) <= 0.3


def test_many_environments_share_what_there_is() -> None:
    begun = run(PollBudget(300), [f"env_{n}" for n in range(20)], 120)
    counts = [len(times) for times in begun.values()]
    assert sum(counts) <= 600
    assert max(counts) - min(counts) <= 2


def test_work_that_waits_is_taken_up_at_once() -> None:
    budget = PollBudget(300)
    for _ in range(200):
        assert budget.wait_seconds("env_1", 5.0) == 0
        budget.polled("env_1", 5.0)
        budget.stir("env_1", 5.0)


def test_a_burst_of_one_leaves_the_others_their_share_and_itself_a_poll_a_second() -> None:
    budget = PollBudget(300)
    for name in ("busy", "quiet"):
        budget.join(name, 0)
    while budget.wait_seconds("busy", 0.0) <= 0:
        budget.polled("busy", 0.0)
        budget.stir("busy", 0.0)
    assert budget.wait_seconds("quiet", 0.0) == 0
    assert budget.wait_seconds("busy", 0.0) == pytest.approx(1.0)


def test_two_bursts_divide_the_pool() -> None:
    budget, taken = PollBudget(300), {"a": 0, "b": 0}
    for name in taken:
        budget.stir(name, 0.0)
    while waiting := [name for name in taken if budget.wait_seconds(name, 0.0) <= 0]:
        for name in waiting:
            budget.polled(name, 0.0)
            taken[name] += 1
    assert taken["a"] == taken["b"]


def test_the_quiet_wait_only_where_the_budget_forces_it() -> None:
    few, many = PollBudget(300), PollBudget(60)
    for budget in (few, many):
        for name in ("quiet", "active"):
            budget.join(name, 0)
        budget.stir("active", 3600)
        budget.calm("active", 3600)
        for name in ("quiet", "active"):
            budget.polled(name, 3600)
    assert few.wait_seconds("quiet", 3600) == few.wait_seconds("active", 3600) == 1.0
    assert many.wait_seconds("quiet", 3600) == pytest.approx(
        8 * many.wait_seconds("active", 3600), rel=0.01
    )


def test_one_that_leaves_gives_its_share_back() -> None:
    budget = PollBudget(60)
    for name in ("a", "b"):
        budget.polled(name, 0)
    before = budget.wait_seconds("a", 0)
    budget.leave("b")
    assert budget.wait_seconds("a", 0) == pytest.approx(before / 2)


def test_no_budget_is_no_setting() -> None:
    with pytest.raises(ValueError, match="at least one"):
        PollBudget(0)

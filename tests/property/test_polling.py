"""The poll budget under any order of polls, work and time: never over it, and never starved."""

from hypothesis import given
from hypothesis import strategies as st

from handiwork.sessions.polling import PollBudget

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["poll", "poll", "poll", "stir", "calm", "leave"]),
        st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]),
        st.floats(0, 20, allow_subnormal=False),
    ),
    max_size=200,
)


@given(per_minute=st.integers(1, 400), steps=STEPS)
def test_no_minute_has_more_polls_than_the_budget(
    per_minute: int, steps: list[tuple[str, str, float]]
) -> None:
    budget, now = PollBudget(per_minute), 0.0
    begun: list[float] = []
    for verb, name, seconds in steps:
        now += seconds / 10
        match verb:
            case "poll":
                for _ in range(50):
                    if budget.wait_seconds(name, now) > 0:
                        break
                    budget.polled(name, now)
                    begun.append(now)
            case "stir":
                budget.stir(name, now)
            case "calm":
                budget.calm(name, now)
            case _:
                budget.leave(name)
    for number, start in enumerate(begun):
        assert sum(1 for at in begun[number:] if at < start + 60) <= per_minute


@given(
    per_minute=st.integers(10, 400),
    others=st.integers(0, 10),
    bursts=st.lists(st.floats(0, 300, allow_subnormal=False), max_size=20),
)
def test_a_wait_ends_whatever_the_others_do(
    per_minute: int, others: int, bursts: list[float]
) -> None:
    """A quiet environment beside greedy ones gets its share of every stretch of minutes."""
    budget, now = PollBudget(per_minute), 0.0
    greedy = [f"greedy_{n}" for n in range(others)]
    for name in ("quiet", *greedy):
        budget.join(name, now)
    due = sorted(bursts)
    polls = 0
    while now < 360:
        while due and due[0] <= now:
            due.pop(0)
            for name in greedy:
                budget.stir(name, now)
                while budget.wait_seconds(name, now) <= 0:
                    budget.polled(name, now)
                    budget.stir(name, now)
        if budget.wait_seconds("quiet", now) <= 0:
            budget.polled("quiet", now)
            polls += 1
        now += 0.5
    # An eighth of the least share of a minute, over the minutes that are whole.
    assert polls >= int(5 * min(60, per_minute * 0.8 / (others + 1)) / 8)


@given(st.data())
def test_waiting_as_long_as_told_is_enough(data: st.DataObject) -> None:
    budget, now = PollBudget(data.draw(st.integers(1, 100))), 0.0
    for _ in range(data.draw(st.integers(1, 40))):
        name = data.draw(st.sampled_from(["a", "b", "c"]))
        budget.polled(name, now) if budget.wait_seconds(name, now) <= 0 else None
        now += data.draw(st.floats(0, 5))
    for _ in range(1000):
        wait = budget.wait_seconds("a", now)
        if wait <= 0:
            return
        now += wait + 1e-6
    raise AssertionError("the wait never ended")

"""When a failed request is made again."""

from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local.models import ModelFailedError
from handiwork.brains.local.retries import Retries


def failed(**more) -> ModelFailedError:
    return ModelFailedError("x", **({"retry": True} | more))


@given(st.integers(1, 6), st.floats(0, 1))
def test_waits_grow_within_bounds_and_differ_by_chance(failures, chance):
    retries = Retries(chance=lambda: chance)
    seconds = retries.wait(failures, failed())
    doubled = min(30.0, 0.5 * 2 ** (failures - 1))
    assert doubled / 2 <= seconds <= doubled


def test_it_gives_up():
    retries = Retries(most=2)
    assert retries.wait(2, failed()) is not None
    assert retries.wait(3, failed()) is None
    assert retries.wait(1, failed(retry=False)) is None


def test_the_provider_is_waited_for_as_long_as_it_asks_within_reason():
    assert Retries().wait(1, failed(retry_after=20.0)) == 20.0
    assert Retries().wait(1, failed(retry_after=500.0)) is None

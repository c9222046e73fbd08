"""The clock of quiet: when it runs, when it stands, and how long it takes."""

import asyncio

import pytest

from handiwork.model.session import TurnIdle, TurnRunning
from handiwork.sessions.quiet import Quiet

LONG = 600.0
OPEN = TurnIdle(stop_reason="requires_action")
OVER = TurnIdle(stop_reason="end_turn")


async def seconds_left(quiet, *, busy=False, draining=False):
    """Return what the clock has left after it was armed anew; None where it stands."""
    async with quiet.clock() as clock:
        quiet.rearm(busy=busy, draining=draining)
        when = clock.when()
        clock.reschedule(None)
    return when and round(when - asyncio.get_running_loop().time())


def told(*events, reached=True):
    quiet = Quiet(60.0, LONG)
    quiet.reached(reached)
    for event in events:
        quiet.take(event)
    return quiet


@pytest.mark.parametrize(
    ("events", "left"),
    [
        ([], 60),
        ([OVER], 60),
        ([OPEN], None),
        ([TurnRunning()], None),
        ([TurnRunning(), OVER], 60),
        ([OVER, TurnRunning()], None),
    ],
)
async def test_it_runs_while_no_turn_is_open(events, left):
    quiet = told(*events)
    assert await seconds_left(quiet) == left
    assert await seconds_left(quiet, busy=True) is None
    assert quiet.turn_over == (events != [] and left is not None)


async def test_who_cannot_follow_the_brain_waits_longer():
    quiet = told(OVER, reached=False)
    assert await seconds_left(quiet) == LONG
    quiet.reached(True)
    assert await seconds_left(quiet) == 60
    assert await seconds_left(Quiet(60.0, 30.0)) == 60


def test_only_a_change_of_the_way_to_the_brain_begins_the_clock_anew():
    quiet = told(OVER, reached=False)
    assert not quiet.reached(False)
    assert quiet.reached(True)
    assert not quiet.reached(True)
    assert quiet.reached(False)


async def test_it_starts_before_anything_is_known():
    async with Quiet(60.0, LONG).clock() as clock:
        assert round(clock.when() - asyncio.get_running_loop().time()) == LONG


async def wait_in(quiet, **armed):
    """Wait inside of the clock, which may be armed anew before, and in vain when it has expired."""
    async with quiet.clock():
        if armed:
            quiet.rearm(**armed)
        try:
            await asyncio.sleep(LONG)
        finally:
            quiet.rearm(busy=True, draining=False)


async def test_a_drain_ends_it_as_soon_as_no_call_runs():
    quiet = told(OPEN)
    assert await seconds_left(quiet, busy=True, draining=True) is None
    with pytest.raises(TimeoutError):
        await wait_in(quiet, busy=False, draining=True)


async def test_what_is_outdated_rests_as_soon_as_its_turn_is_over():
    quiet = told(TurnRunning())
    quiet.outdated = True
    assert await seconds_left(quiet) is None
    quiet.take(OVER)
    assert await seconds_left(quiet, busy=True) is None
    with pytest.raises(TimeoutError):
        await wait_in(quiet, busy=False, draining=False)


async def test_what_expired_and_what_never_ran_is_left_alone():
    quiet = Quiet(0.0, 0.0)
    quiet.rearm(busy=True, draining=False)
    with pytest.raises(TimeoutError):
        await wait_in(quiet)

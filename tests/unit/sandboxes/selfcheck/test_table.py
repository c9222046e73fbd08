"""The suite tells what failed, goes on, and leaves nothing."""

import pytest

from handiwork.model.errors import GuestError, SandboxUnavailableError
from handiwork.sandboxes.selfcheck import AREAS, CODE_AREAS, names, selfcheck
from handiwork.sandboxes.selfcheck.table import CHECKS, Refuted, expect, hold, refused
from handiwork.testing.sandbox import FakeDriver


async def fails_with(number):
    raise GuestError("x", errno=number)


async def nothing():
    return None


async def test_what_was_expected():
    expect(1, 1, "x")
    hold(True, "x")
    await refused(fails_with(2), 2, 3)


async def test_what_was_not():
    with pytest.raises(Refuted, match="1 instead of 2"):
        expect(1, 2, "x")
    with pytest.raises(Refuted):
        hold(False, "x")
    with pytest.raises(Refuted, match="error 5"):
        await refused(fails_with(5), 2)
    with pytest.raises(Refuted, match="was done"):
        await refused(nothing(), 2)


def test_names_are_unique_and_many():
    areas = {*AREAS, *CODE_AREAS}
    assert len(set(names(areas))) == len(CHECKS) >= 35
    assert sum(len(names([area])) for area in areas) == len(CHECKS)


async def test_a_tier_that_makes_no_sandbox_fails_every_check():
    class Broken(FakeDriver):
        async def create(self, spec):
            raise SandboxUnavailableError("no machine")

    found = [made async for made in selfcheck(Broken(), areas=["command"])]
    assert len(found) == len(names(["command"]))
    assert not any(made.ok for made in found)
    assert all("no machine" in made.detail for made in found)


async def test_nothing_is_left():
    driver = FakeDriver()
    assert all([made.ok async for made in selfcheck(driver, areas=["files", "life"])])
    assert await driver.leftovers() == []

"""A tier that keeps no files, loses some, or puts nothing back, is found out."""

import os
from datetime import UTC, datetime

import pytest

from handiwork.model.errors import ConflictError
from handiwork.sandboxes.namespace import NamespaceDriver
from handiwork.sandboxes.selfcheck import selfcheck
from handiwork.testing.sandbox import FakeDriver

CHECKED = ("files are made again as they were", "what runs is taken at one moment and goes on")


class Sabotaged:
    """A good tier, but for what a subclass does."""

    def __init__(self, driver):
        self._driver = driver

    def __getattr__(self, name):
        return getattr(self._driver, name)


class PutsNothingBack(Sabotaged):
    async def remake(self, sandbox_id, image, disk_mib, make, *, forked=False):
        if sandbox_id in self._driver._running:
            raise ConflictError("it runs")


class ReplacesWhatRuns(Sabotaged):
    async def remake(self, sandbox_id, image, disk_mib, make, *, forked=False):
        return


class LosesContent(Sabotaged):
    async def remake(self, sandbox_id, image, disk_mib, make, *, forked=False):
        async def plain(place, ids):
            entries = await make(place, ids)
            for entry in entries:
                if entry.name == b"a":
                    os.truncate(f"/proc/self/fd/{place}/upper/workspace/a", 0)
            return entries

        await self._driver.remake(sandbox_id, image, disk_mib, plain)


class EndsIt(Sabotaged):
    def still(self, sandbox_id):
        for running in self._driver._running.values():
            running.launched.process.kill()
        return self._driver.still(sandbox_id)


async def made(driver, only):
    return [found async for found in selfcheck(driver, only=only)]


async def test_a_tier_without_says_so():
    found = await made(FakeDriver(), CHECKED)
    assert [one.name for one in found] == list(CHECKED)
    assert {one.detail for one in found} == {
        "UnsupportedError: what a sandbox of this tier writes is on this host alone"
    }


@pytest.mark.parametrize(
    ("sabotage", "name"),
    [
        (PutsNothingBack, CHECKED[0]),
        (ReplacesWhatRuns, CHECKED[0]),
        (LosesContent, CHECKED[0]),
        (EndsIt, CHECKED[1]),
    ],
)
async def test_found_out(tmp_path, sabotage, name):
    driver = NamespaceDriver(tmp_path, clock=lambda: datetime.now(UTC))
    (found,) = await made(sabotage(driver), [name])
    assert not found.ok
    assert await driver.leftovers() == []


async def test_the_control(tmp_path):
    driver = NamespaceDriver(tmp_path, clock=lambda: datetime.now(UTC))
    assert [one.ok for one in await made(driver, CHECKED)] == [True, True]

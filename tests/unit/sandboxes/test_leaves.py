"""Control groups made ahead: whose limits they have, how many wait, and what is left of them."""

from pathlib import Path

import pytest

from handiwork.model.sandbox import Limits
from handiwork.sandboxes.leaves import AHEAD, Leaves


class Groups:
    def __init__(self):
        self.made = {}
        self.fails = False

    def make(self, leaf, limits, devices=()):
        self.made[leaf] = (limits, devices)
        if self.fails:
            raise OSError(22, "Invalid argument")
        return [Path("/groups", leaf)]

    async def remove(self, leaf):
        self.made.pop(leaf, None)


SMALL, LARGE = Limits(memory_mib=64), Limits(memory_mib=128)
RATED = Limits(memory_mib=64, disk_read_mib_per_second=5)


async def test_one_that_waits_is_taken_once_by_who_has_its_limits():
    groups = Groups()
    leaves = Leaves(groups, ready=2)
    await leaves.prepare(SMALL)
    assert len(groups.made) == 2
    assert leaves.take("sbx_one", LARGE, ()) == ("sbx_one", [Path("/groups/sbx_one")])
    taken = [leaves.take(name, SMALL, ("7:1",)) for name in ("sbx_two", "sbx_three", "sbx_four")]
    names = [name for name, _ in taken]
    assert all(name.startswith(AHEAD) for name in names[:2])
    assert len(set(names)) == 3
    assert names[2] == "sbx_four"
    assert [groups.made[name][0] for name in names] == [SMALL] * 3
    assert all(found == [Path("/groups", name)] for name, found in taken)
    await leaves.prepare(SMALL)
    assert not {name for name, _ in taken} & {leaves.take("x", SMALL, ())[0]}


async def test_rates_of_disks_are_never_made_before_the_disks_are():
    groups = Groups()
    leaves = Leaves(groups)
    await leaves.prepare(RATED)
    assert groups.made == {}
    assert leaves.take("sbx_one", RATED, ("7:1",))[0] == "sbx_one"
    assert groups.made["sbx_one"] == (RATED, ("7:1",))


async def test_what_waits_is_removed_at_the_end_and_what_was_taken_is_not():
    groups = Groups()
    leaves = Leaves(groups, ready=2)
    await leaves.prepare(SMALL)
    taken, _ = leaves.take("sbx_one", SMALL, ())
    await leaves.close()
    assert list(groups.made) == [taken]
    assert leaves.take("sbx_two", SMALL, ())[0] == "sbx_two"


async def test_one_whose_limit_cannot_be_set_leaves_nothing():
    groups = Groups()
    groups.fails = True
    with pytest.raises(OSError, match="Invalid"):
        await Leaves(groups).prepare(SMALL)
    assert groups.made == {}

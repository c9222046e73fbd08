"""A state made anew: swapped in whole, or nothing of it is left."""

import asyncio
import os
from datetime import UTC, datetime

import msgspec
import pytest

from handiwork.model.errors import NotFoundError, SandboxUnavailableError
from handiwork.process import is_root
from handiwork.sandboxes import disks
from handiwork.sandboxes.remaking import Remaking
from handiwork.sandboxes.states import States
from uppers import upper

ID = "sbx_aaaaaaaa"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def states(tmp_path):
    return States(tmp_path / "sandboxes", ranged=is_root(), first_id=1 << 30)


def remaking(states, place=None, *, forked=False):
    return Remaking(
        states=states,
        disks=place,
        sandbox_id=ID,
        image="abc",
        disk_mib=64,
        now=NOW,
        forked=forked,
    )


def written(text):
    async def make(place, ids):
        os.mkdir("upper", dir_fd=place)
        file = os.open("upper/a", os.O_WRONLY | os.O_CREAT, dir_fd=place)
        os.write(file, text)
        os.close(file)

    return make


async def test_in_place_of_what_is_there_or_of_nothing(states, tmp_path):
    for text in (b"one", b"two"):
        await remaking(states).run(written(text))
        assert (states.path(ID) / "upper/a").read_bytes() == text
        assert states.load(ID, "").image == "abc"
        assert [one.name for one in (tmp_path / "sandboxes").iterdir()] == [ID]


async def test_it_is_told_that_the_files_were_anothers_until_it_has_started(states):
    await remaking(states).run(written(b"one"))
    assert not states.load(ID, "").forked
    await remaking(states, forked=True).run(written(b"one"))
    assert states.load(ID, "").forked
    await remaking(states).run(written(b"two"))  # rolled back before it ever started
    assert states.load(ID, "").forked
    states.save(msgspec.structs.replace(states.load(ID, ""), forked=False))
    await remaking(states).run(written(b"two"))
    assert not states.load(ID, "").forked


async def test_a_state_whose_meta_file_cannot_be_read_is_made_anew(states):
    await remaking(states).run(written(b"one"))
    (states.path(ID) / "meta.json").write_bytes(b"{")
    await remaking(states).run(written(b"two"))
    assert states.load(ID, "").image == "abc"


@pytest.mark.parametrize(
    ("fault", "told"),
    [(OSError(28, "No space left"), SandboxUnavailableError), (asyncio.CancelledError(), None)],
)
async def test_what_fails_leaves_what_was_there(states, tmp_path, fault, told):
    async def failing(place, ids):
        await written(b"half")(place, ids)
        raise fault

    await remaking(states).run(written(b"one"))
    with pytest.raises(told or asyncio.CancelledError):
        await remaking(states).run(failing)
    assert (states.path(ID) / "upper/a").read_bytes() == b"one"
    assert [one.name for one in (tmp_path / "sandboxes").iterdir()] == [ID]


@pytest.mark.skipif(not disks.can_limit_disks(), reason="this host has no disks for sandboxes")
async def test_on_a_disk_of_its_own_without_which_it_is_lost(states, tmp_path):
    place = disks.Disks(tmp_path / "disks")
    await remaking(states, place).run(written(b"one"))
    with upper(states.path(ID)) as found:
        assert (found / "a").read_bytes() == b"one"
    states.disk(ID).unlink()
    with pytest.raises(NotFoundError, match="the disk of sandbox"):
        states.load(ID, "")

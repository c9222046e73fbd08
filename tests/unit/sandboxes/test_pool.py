"""How many stand ready, which one is given, and what becomes of those that nobody wants."""

import asyncio
from pathlib import Path

import pytest

from handiwork.config import PooledSettings, PoolSettings, SandboxSettings
from handiwork.model.errors import SandboxUnavailableError, UnsupportedError
from handiwork.model.sandbox import SIZES, Limits
from handiwork.sandboxes.images.image import Image
from handiwork.sandboxes.pool import Pool, kinds_of, wishes_of
from handiwork.sandboxes.protocol import Wish


class Made:
    def __init__(self, key):
        self.key = key
        self.stands = True
        self.ended = 0

    async def end(self):
        self.stands = False
        self.ended += 1


@pytest.fixture
def made():
    return []


@pytest.fixture
def heard():
    return []


@pytest.fixture
def pool(made, heard):
    async def make(key):
        made.append(Made(key))
        return made[-1]

    return Pool(make, heard.append)


async def test_as_many_stand_as_are_wanted_and_each_is_given_once(pool, made, heard):
    await pool.fill({"a": 2, "b": 1})
    assert (len(pool), [one.key for one in made], heard[-1]) == (3, ["a", "a", "b"], 3)
    assert pool.take("c") is None
    assert {pool.take("a"), pool.take("a")} == set(made[:2])
    assert pool.take("a") is None
    assert (len(pool), heard[-1]) == (1, 1)
    await pool.fill({"a": 2, "b": 1})
    assert (len(pool), len(made)) == (3, 5)
    assert not any(one.ended for one in made)


async def test_one_that_fell_is_not_given_and_ended(pool, made):
    await pool.fill({"a": 2})
    made[0].stands = False
    assert pool.take("a") is made[1]
    assert pool.take("a") is None
    await pool.fill({"a": 1})
    assert (made[0].ended, len(pool), len(made)) == (1, 1, 3)


async def test_what_is_wanted_no_more_is_ended(pool, made, heard):
    await pool.fill({"a": 2, "b": 1})
    await pool.fill({"a": 1})
    assert [one.ended for one in made] == [0, 1, 1]
    await pool.fill({})
    assert [one.ended for one in made] == [1, 1, 1]
    assert (len(pool), heard[-1]) == (0, 0)


async def test_wishes_for_the_same_image_and_limits_are_of_one_kind():
    """Whatever the image is called; what nobody is to make ready is not looked for."""

    async def resolve(name):
        digest = {"a": "1", "also-a": "1", "b": "2"}[name]
        return Image(digest=digest, tree=Path("/t"), roots=Path("/r"))

    small, large = SIZES["small"], SIZES["large"]
    wishes = [
        Wish(image="a", limits=small, sandboxes=1),
        Wish(image="also-a", limits=small, sandboxes=2),
        Wish(image="a", limits=large, sandboxes=1),
        Wish(image="b", limits=small, sandboxes=1),
        Wish(image="nowhere", limits=small),
    ]
    assert await kinds_of(wishes, resolve) == {("1", small): 3, ("1", large): 1, ("2", small): 1}


async def test_what_could_not_be_ended_is_given_to_nobody_and_ended_next_time(
    pool, made, monkeypatch
):
    await pool.fill({"a": 3})
    end = Made.end

    async def fails(self):
        raise ConnectionError

    monkeypatch.setattr(Made, "end", fails)
    with pytest.raises(ConnectionError):
        await pool.fill({"a": 1})
    monkeypatch.setattr(Made, "end", end)
    assert pool.take("a") is made[0]
    assert pool.take("a") is None
    await pool.fill({})
    assert [one.ended for one in made] == [0, 1, 1]


async def test_a_failure_leaves_those_that_stand(made):
    async def make(key):
        if made:
            raise ConnectionError
        made.append(Made(key))
        return made[0]

    pool = Pool(make)
    with pytest.raises(ConnectionError):
        await pool.fill({"a": 3})
    assert pool.take("a") is made[0]


async def test_what_fails_of_one_kind_keeps_no_other_from_being_made(made):
    async def make(key):
        if key == "bad":
            raise SandboxUnavailableError("no room for this one")
        made.append(Made(key))
        return made[-1]

    pool = Pool(make)
    with pytest.raises(SandboxUnavailableError, match="no room"):
        await pool.fill({"bad": 1, "good": 2})
    assert pool.take("good") is made[0]


async def test_an_image_that_is_not_there_yet_keeps_no_other_from_standing_ready():
    async def resolve(name):
        if name == "none":
            raise UnsupportedError("there is no image 'none'")
        return Image(digest="1", tree=Path("/t"), roots=Path("/r"))

    wishes = [Wish(image=name, limits=Limits(), sandboxes=2) for name in ("none", "one")]
    assert await kinds_of(wishes, resolve) == {("1", Limits()): 2}


async def test_one_can_be_taken_while_others_are_made(made):
    second = asyncio.Event()

    async def make(key):
        if made:
            second.set()
            await asyncio.sleep(60)
        made.append(Made(key))
        return made[-1]

    pool = Pool(make)
    filling = asyncio.create_task(pool.fill({"a": 2}))
    await second.wait()
    assert pool.take("a") is made[0]
    filling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await filling


def test_wishes_are_the_default_and_what_else_is_named():
    small = PooledSettings(tier="gvisor", image="py", size="small", ready=3)
    settings = SandboxSettings(
        limits=Limits(pids=9), pool=PoolSettings(ready=5, more=(small, PooledSettings(ready=1)))
    )
    assert wishes_of(settings, "namespace") == [
        Wish(image="host", limits=Limits(pids=9), sandboxes=5),
        Wish(image="host", limits=Limits(pids=9), sandboxes=1),
    ]
    assert wishes_of(settings, "gvisor") == [Wish(image="py", limits=SIZES["small"], sandboxes=3)]


def test_of_a_tier_that_no_pool_names_only_what_sandboxes_need_is_wished():
    settings = SandboxSettings(tier="gvisor")
    assert wishes_of(settings, "namespace") == [Wish(image="host", limits=Limits(), sandboxes=0)]

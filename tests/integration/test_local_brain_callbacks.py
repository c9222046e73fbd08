"""Callbacks of the local brain through a real proxy: resolved, checked and dialled there."""

from pathlib import Path

import pytest

from egress_world import HOST, World, grant, world
from handiwork.brains.local.callbacks import Callbacks
from handiwork.model.policy import AllowRule, Match

ANY = AllowRule(id="any", match=Match(hosts=("*",), methods=("POST",)))


@pytest.fixture
async def here(tmp_path: Path):
    async with world(tmp_path) as made:
        yield made


async def test_a_callback_arrives_by_tls_with_body_and_signature(here: World):
    way = await here.open(grant(here.service()))
    async with Callbacks(way.path).open() as calls:
        for _ in range(2):
            url = f"https://{HOST}/hook?a=b%20c"
            assert await calls.post(url, b'{"id": 1}', {"webhook-signature": "v1,x"}) == 200
    for seen in here.upstream.seen:
        assert (seen.method, seen.target, seen.body) == ("POST", "/hook?a=b%20c", b'{"id": 1}')
        assert seen.values("host") == [HOST]
        assert seen.values("webhook-signature") == ["v1,x"]
    records = await here.records(2, allowed=True)
    assert {record.path for record in records} == {"/hook"}


async def test_what_the_proxy_refuses_is_nobodys_answer(here: World):
    way = await here.open(grant(here.service()))
    async with Callbacks(way.path).open() as calls:
        assert await calls.post("https://other.example.com/", b"{}", {}) is None
    assert here.upstream.seen == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0.0.0.0", "2130706433"])
async def test_this_machine_is_not_reached_by_a_callback(here: World, host: str):
    """The control is the first test: the same server is reached by a rule that names it."""
    way = await here.open(grant(ANY))
    url = f"https://{host}:{here.upstream.port}/"
    async with Callbacks(way.path).open() as calls:
        assert await calls.post(url, b"{}", {}) is None
        assert await calls.post(f"https://{host}/", b"{}", {}) is None
    assert here.upstream.connections == 0

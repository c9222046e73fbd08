"""Ways out of the local brain: what the operator wrote down directly, anything else by the proxy."""

import pytest

from handiwork.brains.local.callbacks import Callbacks
from webhook_receiver import receiving

DIRECT = frozenset({"127.0.0.1"})


def test_a_url_that_could_never_be_called_is_refused():
    assert Callbacks(None, DIRECT).check("http://127.0.0.1:1/a") == "http://127.0.0.1:1/a"
    assert Callbacks("/socket").check("https://example.com/a") == "https://example.com/a"
    with pytest.raises(ValueError, match="no way out"):
        Callbacks(None, DIRECT).check("https://example.com/")
    with pytest.raises(ValueError, match="webhook_hosts"):
        Callbacks("/socket", DIRECT).check("http://127.0.0.2/")


async def test_a_host_of_the_operators_is_called_directly():
    async with receiving(202) as receiver, Callbacks(None, DIRECT).open() as calls:
        assert await calls.post(receiver.url, b"{}", {"x-a": "1"}) == 202
        (told,) = await receiver.heard(1)
        assert (told.body, told.headers["x-a"]) == (b"{}", "1")


@pytest.mark.parametrize("way", [None, "/nowhere"])
async def test_without_its_way_out_nothing_is_called(way):
    async with receiving(200) as receiver, Callbacks(way, frozenset()).open() as calls:
        url = receiver.url.replace("http:", "https:")
        assert await calls.post(url, b"{}", {}) is None
        assert receiver.requests == []

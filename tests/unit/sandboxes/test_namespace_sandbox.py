"""What a sandbox of the namespace tier refuses, and what it does around a freeze."""

from contextlib import asynccontextmanager

import pytest

from handiwork.model.errors import UnsupportedError
from handiwork.model.sandbox import ExecRequest
from handiwork.sandboxes.channel import Channel
from handiwork.sandboxes.namespace_sandbox import NamespaceSandbox


def sandbox(*, ranged=True, still=lambda: None):
    channel = Channel(lambda _: None)
    return NamespaceSandbox("sbx_aaaaaaaa", channel, {}, ranged=ranged, still=still)


async def test_rootless_has_one_user():
    rootless = sandbox(ranged=False)
    rootless.check(ExecRequest(argv=("x",), user="0:0"))
    with pytest.raises(UnsupportedError, match="one user"):
        rootless.check(ExecRequest(argv=("x",), user="nobody"))
    sandbox().check(ExecRequest(argv=("x",), user="nobody"))


async def test_what_its_agent_owes_is_not_late_while_it_is_frozen():
    told = []

    @asynccontextmanager
    async def freezer():
        told.append("frozen")
        yield
        told.append("thawed")

    box = sandbox(still=freezer)
    box._channel.deadlines.pause = lambda: told.append("paused")
    box._channel.deadlines.resume = lambda: told.append("resumed")
    with pytest.raises(RuntimeError):
        async with box.frozen():
            raise RuntimeError
    async with box.frozen():
        pass
    assert told == ["paused", "frozen", "resumed", "paused", "frozen", "thawed", "resumed"]

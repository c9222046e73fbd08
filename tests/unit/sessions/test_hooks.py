"""What hooks themselves may reach, and which there are."""

import asyncio
from pathlib import Path

import pytest

from egress_world import layer
from handiwork.config import EgressSettings, HooksSettings, Settings
from handiwork.egress.control import ProxySettings
from handiwork.egress.hooks.wire import Catalog, Denied, frame
from handiwork.egress.registry import EgressRegistry
from handiwork.model.errors import SandboxUnavailableError
from handiwork.model.hook import HookInfo
from handiwork.model.policy import AllowRule, Match
from handiwork.sessions.hooks import Hooks, layers_of
from handiwork.sessions.policies import NOTHING, PolicyResolver
from handiwork.testing.store import MemoryStore

CATALOG = Catalog(hooks=(HookInfo(name="h", stages=("request",)),))


def test_their_own_policy_and_the_houses_hold_or_nothing_does() -> None:
    house = EgressSettings(policy="house")
    assert layers_of(Settings(egress=house)).names == ()
    own = Settings(egress=house, hooks=HooksSettings(policy="own"))
    assert layers_of(own).names == (("global", "house"), ("tool", "own"))
    alone = Settings(hooks=HooksSettings(policy="own"))
    assert layers_of(alone).names == (("tool", "own"),)


def hooks(directory: Path, store: MemoryStore, policy: str = "own") -> Hooks:
    settings = Settings(hooks=HooksSettings(policy=policy))
    registry = EgressRegistry(directory / "run", ProxySettings(keys="", audit=""))
    return Hooks(directory / "s", PolicyResolver(store, settings), registry, layers_of(settings))


async def test_a_policy_that_is_not_there_permits_nothing(tmp_path: Path) -> None:
    store = MemoryStore()
    made = hooks(tmp_path, store)
    assert await made._grant() == NOTHING
    rule = AllowRule(id="a", match=Match(hosts=("a.test",)))
    policy = layer(rule, name="own").policy
    from api_stand_in import NOW

    await store.policies.put(policy, NOW)
    [held] = (await made._grant()).layers
    assert (held.scope, held.policy) == ("tool", policy)
    await made.refresh()  # its way out is not open yet


@pytest.mark.parametrize(
    ("said", "listed"),
    [
        (frame(CATALOG), True),
        (frame(Denied(id=1, reason="x")), False),
        (b"", False),
        (b"\xff" * 8, False),
    ],
)
async def test_the_process_says_which_there_are(tmp_path: Path, said: bytes, listed: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    made = hooks(tmp_path, MemoryStore())
    with pytest.raises(SandboxUnavailableError):
        await made.catalog()
    async with await asyncio.start_unix_server(serve, tmp_path / "s"):
        if listed:
            assert await made.catalog() == CATALOG.hooks
        else:
            with pytest.raises(SandboxUnavailableError, match="does not answer"):
                await made.catalog()

"""The registry against a proxy that misbehaves: whatever it does, every way out refuses."""

import asyncio
import os
import socket
from pathlib import Path

import msgspec
import pytest

from handiwork.egress.control import (
    Channel,
    Close,
    Done,
    Key,
    Open,
    Opened,
    ProxySettings,
    Ready,
    Refused,
    Request,
    Start,
)
from handiwork.egress.registry import EgressRegistry
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.errors import ConfigError, SandboxUnavailableError

GRANT = EgressGrant(layers=())
BINDING = EgressBinding(id="egb_a", kind="sandbox", ca_id="ses_a")


class Proxy:
    """The other end of the control channel; `say` may be replaced."""

    def __init__(self, registry: EgressRegistry) -> None:
        ours, theirs = socket.socketpair()
        self.asked: list[Request] = []
        self.channel = Channel(theirs, self._took, lambda: None)
        registry.attach(ours)

    def _took(self, payload: bytes, descriptors: list[int]) -> None:
        for number in descriptors:
            os.close(number)
        message = msgspec.json.decode(payload, type=Request)
        self.asked.append(message)
        reply = self.say(message)
        if reply is not None:
            self.channel.send(reply)

    def say(self, message: Request):
        if isinstance(message, Start):
            return Ready(id=message.id, pid=1)
        return (
            Opened(id=message.id, ca_certificate="PEM")
            if isinstance(message, Open)
            else Done(id=message.id)
        )


@pytest.fixture
async def registry(tmp_path: Path):
    settings = ProxySettings(keys="", audit="")
    async with EgressRegistry(tmp_path / "r", settings, reply_seconds=0.3) as made:
        yield made


def sockets(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "r").iterdir())


async def test_a_refusal_opens_nothing(registry: EgressRegistry, tmp_path: Path):
    proxy = Proxy(registry)
    first = proxy.say
    proxy.say = lambda message: (  # type: ignore[method-assign]
        Refused(id=message.id, error="no", config=True)
        if isinstance(message, Open)
        else first(message)
    )
    with pytest.raises(ConfigError, match="no"):
        await registry.open(BINDING, GRANT)
    assert sockets(tmp_path) == []
    proxy.say = first  # type: ignore[method-assign]
    assert (await registry.open(BINDING, GRANT)).ca_certificate == "PEM"
    assert any(isinstance(message, Close) for message in proxy.asked)


async def test_silence_lets_the_proxy_go(registry: EgressRegistry, tmp_path: Path):
    proxy = Proxy(registry)
    way = await registry.open(BINDING, GRANT)
    proxy.say = lambda message: None  # type: ignore[method-assign]
    with pytest.raises(SandboxUnavailableError):
        await registry.update(BINDING.id, GRANT)
    assert not registry.attached
    reader, writer = await asyncio.open_unix_connection(way.path)
    assert await reader.read() == b""
    writer.close()


async def test_an_answer_of_the_wrong_kind_is_no_answer(registry: EgressRegistry):
    proxy = Proxy(registry)
    await registry.ping()
    proxy.say = lambda message: Key(id=message.id, public_key=b"x")  # type: ignore[method-assign]
    with pytest.raises(SandboxUnavailableError):
        await registry.ping()


async def test_nonsense_ends_the_channel(registry: EgressRegistry):
    proxy = Proxy(registry)
    await registry.ping()
    proxy.channel._sock.send(b"\x02\0\0\0\0\0{]")
    await asyncio.sleep(0.05)
    assert not registry.attached


async def test_a_proxy_that_cannot_start_is_let_go(registry: EgressRegistry):
    proxy = Proxy(registry)
    proxy.say = lambda message: Refused(id=message.id, error="no keys")  # type: ignore[method-assign]
    with pytest.raises(SandboxUnavailableError):
        await registry.open(BINDING, GRANT)
    assert not registry.attached


async def test_a_second_proxy_takes_the_place_of_the_first(registry: EgressRegistry):
    first = Proxy(registry)
    await registry.open(BINDING, GRANT)
    second = Proxy(registry)
    await registry.ping()
    assert first.channel.closed
    assert [type(message).__name__ for message in second.asked[:2]] == ["Start", "Open"]


async def test_close_all_leaves_nothing(registry: EgressRegistry, tmp_path: Path):
    Proxy(registry)
    await registry.open(BINDING, GRANT)
    registry.close_all()
    assert sockets(tmp_path) == []
    assert not registry.attached


async def test_sockets_of_a_run_that_was_killed_are_removed(tmp_path):
    runtime = tmp_path / "r"
    runtime.mkdir(mode=0o700)
    (runtime / "0123456789abcdef.s").touch()
    (runtime / "else").touch()
    async with EgressRegistry(runtime, ProxySettings(keys="", audit="")):
        assert [one.name for one in runtime.iterdir()] == ["else"]


async def test_it_holds_the_hooks_listener_where_it_is_wanted(tmp_path: Path) -> None:
    settings = ProxySettings(keys="", audit="")
    (tmp_path / "hooks.s").touch()  # of a run that was killed
    async with EgressRegistry(tmp_path, settings, hooks=True) as registry:
        assert registry.hooks is not None
        assert registry.hooks.path.is_socket()
    assert registry.hooks is None
    assert not (tmp_path / "hooks.s").exists()
    async with EgressRegistry(tmp_path, settings) as without:
        assert without.hooks is None

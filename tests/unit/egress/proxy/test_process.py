"""What the process says to messages that come at the wrong time or ask for the wrong thing."""

import os
import socket
from pathlib import Path

import msgspec
import pytest

from handiwork.egress.control import (
    Close,
    Done,
    Open,
    Opened,
    Ping,
    ProxySettings,
    Ready,
    Refused,
    SealKey,
    Start,
    Update,
)
from handiwork.egress.proxy.process import ProxyProcess
from handiwork.model.egress import EgressBinding, EgressGrant
from handiwork.model.errors import ConfigError

GRANT = EgressGrant(layers=())
BINDING = EgressBinding(id="egb_a", kind="sandbox", ca_id="ses_a")


@pytest.fixture
async def proxy(tmp_path: Path):
    made = ProxyProcess(now=lambda: None, clock=lambda: 0.0)  # type: ignore[arg-type, return-value]
    yield made
    for binding in made._bindings.values():
        binding.close()
    if made._audit is not None:
        made._audit.close()


@pytest.fixture
def listener():
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("")
        made.listen()
        yield made


def start(tmp_path: Path, **settings: object) -> Start:
    paths = {"keys": str(tmp_path / "keys"), "audit": str(tmp_path / "audit")}
    return Start(id=1, settings=ProxySettings(**paths, **settings))  # type: ignore[arg-type]


async def test_nothing_is_served_before_the_start(proxy: ProxyProcess):
    for message in (
        SealKey(id=1, tenant="default"),
        Close(id=2, binding_id="egb_a"),
        Update(id=3, binding_id="egb_a", grant=GRANT),
    ):
        with pytest.raises(ConfigError, match="start"):
            proxy._obey(message, [])
    assert proxy._obey(Ping(id=4), []) == Done(id=4)


async def test_it_starts_once(proxy: ProxyProcess, tmp_path: Path):
    assert proxy._obey(start(tmp_path), []) == Ready(id=1, pid=os.getpid())
    with pytest.raises(ConfigError, match="already"):
        proxy._obey(start(tmp_path), [])


async def test_an_open_needs_one_listener_a_free_id_and_room(
    proxy: ProxyProcess, tmp_path: Path, listener: socket.socket, monkeypatch: pytest.MonkeyPatch
):
    from datetime import UTC, datetime

    monkeypatch.setattr(proxy, "_now", lambda: datetime(2026, 1, 1, tzinfo=UTC))
    proxy._obey(start(tmp_path, max_bindings=1), [])
    message = Open(id=2, binding=BINDING, grant=GRANT)
    with pytest.raises(ConfigError, match="one listener"):
        proxy._obey(message, [])
    assert isinstance(proxy._obey(message, [listener.fileno()]), Opened)
    with pytest.raises(ConfigError, match="open already"):
        proxy._obey(message, [listener.fileno()])
    other = msgspec.structs.replace(message, binding=msgspec.structs.replace(BINDING, id="egb_b"))
    with pytest.raises(ConfigError, match="more than 1"):
        proxy._obey(other, [listener.fileno()])
    assert proxy._obey(Close(id=3, binding_id="egb_a"), []) == Done(id=3)
    with pytest.raises(ConfigError, match="not open"):
        proxy._obey(Update(id=4, binding_id="egb_a", grant=GRANT), [])


async def test_a_refusal_travels_as_a_message(proxy: ProxyProcess):
    sent: list[object] = []
    proxy._channel = type("C", (), {"send": staticmethod(sent.append)})  # type: ignore[assignment]
    reading, writing = os.pipe()
    os.close(writing)
    proxy._received(msgspec.json.encode(Close(id=9, binding_id="x")), [reading])
    assert sent == [Refused(id=9, error="the first message must be `start`", config=True)]
    with pytest.raises(OSError):
        os.fstat(reading)


async def test_bytes_that_are_no_message_are_refused(proxy: ProxyProcess):
    with pytest.raises(msgspec.MsgspecError):
        proxy._received(b'{"type":"shutdown","id":1}', [])

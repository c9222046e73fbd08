"""A binding in this process: what is refused before any name is known, and how DNS is held back."""

import asyncio
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from egress_world import grant
from handiwork.egress.control import ProxySettings
from handiwork.egress.proxy.binding import LiveBinding, Plane
from handiwork.egress.proxy.dial import Dialer
from handiwork.egress.proxy.entry import Preamble
from handiwork.egress.proxy.flow import Flow, Origin
from handiwork.egress.proxy.questions import Questions
from handiwork.egress.secrets import Opener
from handiwork.model.egress import EgressBinding
from handiwork.model.policy import AllowRule, Match

ALLOWED = AllowRule(id="a", match=Match(hosts=("a.example.org",), ports=(443, 8443)))


def question(name: str) -> bytes:
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return b"\0\1\1\0\0\1\0\0\0\0\0\0" + labels + b"\0\0\1\0\1"


@pytest.fixture
async def live(tmp_path: Path):
    records: list[object] = []
    settings = ProxySettings(
        keys="", audit="", dns_burst=20.0, dns_per_second=0.0, max_denied_names=4
    )
    opener = Opener(tmp_path / "keys")
    plane = Plane(
        settings=settings,
        loop=asyncio.get_running_loop(),
        dialer=Dialer(settings),
        opener=opener,
        ca_root=opener.ca_root(),
        now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        clock=lambda: 0.0,
        new_id=lambda: "aud_x",
        append=records.append,
        spawn=lambda work: work.close(),
    )
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("")
    listener.listen()
    identity = EgressBinding(id="egb_a", kind="sandbox", ca_id="ses_a")
    made = LiveBinding(plane, identity, grant(ALLOWED), listener)
    made.records = records  # type: ignore[attr-defined]
    yield made
    made.close()
    made.close()


async def test_a_fake_address_stands_for_its_name_and_ports(live: LiveBinding):
    reply = live._answer(question("a.example.org"))
    address = socket.inet_ntoa(reply[-4:])
    assert live._unreachable(Preamble("tcp", address, 443)) == ""
    assert live._unreachable(Preamble("tcp", address, 8443)) == ""
    assert "a.example.org:22" in live._unreachable(Preamble("tcp", address, 22))
    assert live._unreachable(Preamble("tcp", "6.6.6.6", 443)) == ""
    assert "port 22" in live._unreachable(Preamble("tcp", "6.6.6.6", 22))


async def test_denied_names_are_recorded_once_and_bounded(live: LiveBinding):
    for _ in range(2):
        for number in range(6):
            live._answer(question(f"n{number}.example.com"))
    assert len(live.records) == 4  # type: ignore[attr-defined]


async def test_questions_over_the_allowance_get_no_answer(live: LiveBinding):
    answered = [bool(live._answer(question("a.example.org"))) for _ in range(30)]
    assert answered == [True] * 20 + [False] * 10


async def test_a_new_grant_holds_at_once(live: LiveBinding):
    live.update(grant())
    assert "port 443" in live._unreachable(Preamble("tcp", "6.6.6.6", 443))


async def test_the_text_of_a_fault_is_not_logged(
    live: LiveBinding, capsys: pytest.CaptureFixture[str]
):
    try:
        raise ValueError("sk-secret-in-the-text")
    except ValueError as error:
        live.fault("test", error)
    told = capsys.readouterr()
    assert "sk-secret" not in told.out + told.err
    assert "ValueError" in told.out + told.err


class Slow:
    """A loop that does something between accepting a connection and handing it over."""

    def __init__(self, loop: asyncio.AbstractEventLoop, meanwhile: Callable[[], None]) -> None:
        self._loop = loop
        self._meanwhile = meanwhile

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)

    async def connect_accepted_socket(self, *given: object, **more: object) -> object:
        self._meanwhile()
        return await self._loop.connect_accepted_socket(*given, **more)  # type: ignore[arg-type]


def connections(live: LiveBinding) -> list[Flow | Questions]:
    return [
        Questions(live._answer, live._touch, live.gone),
        Flow(live, Origin("absolute"), b"GET http://a.example.org/ HTTP/1.1\r\n"),
    ]


async def nobody_left(live: LiveBinding) -> None:
    for _ in range(500):
        if not live._connections:
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{live._connections} are left")


@pytest.mark.parametrize("number", [0, 1])
async def test_a_sweep_meets_who_was_accepted_and_is_not_handed_over_yet(
    live: LiveBinding, number: int, capsys: pytest.CaptureFixture[str]
):
    ours, theirs = socket.socketpair()
    live.loop = Slow(live.loop, lambda: live.sweep(1e9))  # type: ignore[assignment]
    made = connections(live)[number]
    with theirs:
        theirs.settimeout(5)
        ours.setblocking(False)
        assert await live._hand_over(ours, made, None)
        assert live._connections == {made}
        live.sweep(1e9)  # the control: by now it is overdue
        assert b"200" not in await asyncio.to_thread(theirs.recv, 1000)
    assert "fault" not in capsys.readouterr().err
    await nobody_left(live)


@pytest.mark.parametrize("number", [0, 1])
async def test_who_is_handed_over_after_the_end_is_dropped(live: LiveBinding, number: int):
    ours, theirs = socket.socketpair()
    made = connections(live)[number]
    live.loop = Slow(live.loop, live.close)  # type: ignore[assignment]
    with theirs:
        theirs.settimeout(5)
        ours.setblocking(False)
        await live._hand_over(ours, made, None)
        assert await asyncio.to_thread(theirs.recv, 1000) == b""
    await nobody_left(live)


async def test_a_fault_in_one_connection_ends_no_sweep(
    live: LiveBinding, capsys: pytest.CaptureFixture[str]
):
    class Faulty:
        swept = 0

        def overdue(self, now: float) -> None:
            Faulty.swept += 1
            raise RuntimeError("of a guest's")

        def abort(self) -> None:
            pass

    live._connections |= {Faulty(), Faulty()}  # type: ignore[arg-type]
    live.sweep(1.0)
    assert Faulty.swept == 2

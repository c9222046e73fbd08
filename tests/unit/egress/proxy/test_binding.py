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
from handiwork.egress.proxy.hook_link import HookLink
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
        hooks=HookLink("", 1.0, lambda work: work.close()),
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


@pytest.mark.parametrize(("number", "answer"), [(0, b""), (1, b"HTTP/1.1 408 ")])
async def test_a_sweep_meets_who_was_accepted_and_is_not_handed_over_yet(
    live: LiveBinding, number: int, answer: bytes, capsys: pytest.CaptureFixture[str]
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
        said = await asyncio.to_thread(theirs.recv, 1000)
        assert said[: len(answer) or None] == answer
    assert "fault" not in "".join(capsys.readouterr())
    await nobody_left(live)


@pytest.mark.parametrize("number", [0, 1])
async def test_who_cannot_be_handed_over_is_forgotten(live: LiveBinding, number: int):
    def refuses() -> None:
        raise OSError("no more descriptors")

    ours, theirs = socket.socketpair()
    live.loop = Slow(live.loop, refuses)  # type: ignore[assignment]
    with ours, theirs, pytest.raises(OSError, match="no more descriptors"):
        await live._hand_over(ours, connections(live)[number], None)
    assert live._connections == set()


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


class Faulty(Flow):
    """A flow with a fault of ours in whatever is asked of it."""

    asked = 0

    def _fault(self, *_: object) -> None:
        Faulty.asked += 1
        raise RuntimeError("sk-secret-in-the-text")

    overdue = reconsider = abort = _fault


@pytest.mark.parametrize("what", ["sweep", "update", "close"])
async def test_a_fault_in_one_connection_is_its_own_end_and_no_other_s(
    live: LiveBinding, what: str, capsys: pytest.CaptureFixture[str]
):
    Faulty.asked = 0
    live._connections |= {Faulty(live, Origin("absolute")) for _ in range(2)}
    acts: dict[str, Callable[[], None]] = {
        "sweep": lambda: live.sweep(1.0),
        "update": lambda: live.update(grant()),
        "close": live.close,
    }
    acts[what]()
    assert Faulty.asked == 4  # each was asked, and then dropped
    assert live._connections == set()
    told = "".join(capsys.readouterr())
    assert told.count("fault") >= 2
    assert "sk-secret" not in told

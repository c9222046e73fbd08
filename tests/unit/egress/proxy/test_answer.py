"""The answer's side of an exchange: heads that come again, bodies that come in pieces."""

from types import SimpleNamespace

import pytest

from handiwork.egress.mask import Mask
from handiwork.egress.proxy.answer import Answer
from handiwork.egress.proxy.dial import Destination
from handiwork.egress.proxy.exchange import Exchange
from handiwork.egress.proxy.grants import Injected
from handiwork.egress.proxy.upstream import Upstream

KEY = b"sk-0123456789"
INJECTED = Injected(((b"authorization", KEY),), ("key",), Mask([KEY]))
LENGTH = (b"Content-Length", b"3")
ECHO = (b"X-Echo", KEY)


class Flow:
    """Takes what is written, in the pieces in which it was."""

    write_paused = False

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.records: list[dict[str, object]] = []
        self.origin = SimpleNamespace(scheme="https", host="h", port=443)
        self.binding = SimpleNamespace(
            record=lambda **facts: self.records.append(facts),
            plane=SimpleNamespace(clock=lambda: 0.0),
        )

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def finished(self, exchange: Exchange, *, close: bool) -> None:
        self.closed = close


@pytest.fixture
def upstream():
    return Upstream(Destination("https", "h", 443))


def answer(upstream: Upstream, *, method: bytes = b"GET", keep_alive: bool = True) -> Answer:
    flow = Flow()
    made = Exchange(
        flow,  # type: ignore[arg-type]
        method,
        b"/",
        [],
        version="1.1",
        keep_alive=keep_alive,
        upgrade=False,
    )
    made.injected, made.mask = INJECTED, INJECTED.mask.fresh()
    made.whole, made.upstream = True, upstream
    made.answer = Answer(made, upstream)
    return made.answer


def told(upstream: Upstream, *headers: tuple[bytes, bytes], **kind) -> tuple[bytes, int]:
    """Return the head that the guest gets for an answer, and how often a secret was found."""
    made = answer(upstream, **kind)
    assert made.answered(200, b"OK", list(headers))
    made.flush()
    return made._exchange.flow.written[0], made._exchange.mask.hits


def test_a_head_that_comes_again_is_the_same(upstream):
    first = told(upstream, ECHO, LENGTH)
    assert told(upstream, ECHO, LENGTH) == first
    assert first == (b"HTTP/1.1 200 OK\r\nX-Echo: *************\r\ncontent-length: 3\r\n\r\n", 1)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ((LENGTH,), {}),
        ((ECHO, (b"Content-Length", b"4")), {}),
        ((ECHO,), {}),
        ((ECHO, LENGTH), {"keep_alive": False}),
        ((ECHO,), {"method": b"HEAD"}),
    ],
)
def test_a_head_that_differs_is_made_anew(upstream, headers, kind):
    told(upstream, ECHO, LENGTH)
    told(upstream, ECHO)
    there = told(Upstream(Destination("https", "h", 443)), *headers, **kind)
    assert told(upstream, *headers, **kind) == there


def test_a_body_without_length_is_known_to_end_with_the_connection_each_time(upstream):
    for _ in range(2):
        upstream.unsized = False
        told(upstream, ECHO)
        assert upstream.unsized


def test_an_answer_that_is_whole_is_written_at_once(upstream):
    made = answer(upstream)
    made.answered(200, b"OK", [(b"content-length", b"17")])
    made.received(b"a " + KEY[:5])
    made.received(KEY[5:] + b" s")
    upstream.closed = True
    made.ended(reusable=False)
    assert [data.partition(b"\r\n\r\n")[2] for data in made._exchange.flow.written] == [
        b"a ************* s"
    ]
    assert made._exchange.flow.records[0]["masked"] == 1


def test_what_could_begin_a_secret_waits_for_the_next_piece(upstream):
    made = answer(upstream)
    made.answered(200, b"OK", [(b"content-length", b"15")])
    made.received(b"a " + KEY[:5])
    made.flush()
    assert made._exchange.flow.written[0].endswith(b"\r\n\r\na ")
    made.received(KEY[5:])
    upstream.closed = True
    made.ended(reusable=False)
    assert made._exchange.flow.written[1] == b"*" * len(KEY)

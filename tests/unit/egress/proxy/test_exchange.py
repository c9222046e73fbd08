"""The request's side of an exchange: its body as it is sent, its trailers, and its one retry."""

from types import SimpleNamespace

import pytest

from handiwork.egress.injecting import Written
from handiwork.egress.mask import Mask
from handiwork.egress.proxy.answer import Answer
from handiwork.egress.proxy.dial import Destination
from handiwork.egress.proxy.exchange import Exchange
from handiwork.egress.proxy.grants import Injected
from handiwork.egress.proxy.upstream import Upstream
from handiwork.model.placeholder import PREFIX

HERE = Destination("https", "h", 443)
KEY = b"sk-0123456789"
INJECTED = Injected(Written(((b"x-key", KEY),)), ("key",), Mask([KEY]))


class Flow:
    """Takes what is written to either side, and what is begun."""

    write_paused = False

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.sent: list[bytes] = []
        self.spawned = 0
        self.origin = SimpleNamespace(scheme="https", host="h", port=443)
        self.binding = SimpleNamespace(
            record=lambda **facts: None,
            plane=SimpleNamespace(clock=lambda: 0.0),
            spawn=self._spawn,
            dialer=SimpleNamespace(),
        )

    def _spawn(self, work) -> None:
        work.close()
        self.spawned += 1

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def finished(self, exchange: Exchange, *, close: bool) -> None:
        self.closed = close


def exchange(method: bytes = b"POST") -> Exchange:
    flow = Flow()
    made = Exchange(
        flow,  # type: ignore[arg-type]
        method,
        b"/",
        [],
        version="1.1",
        keep_alive=True,
        upgrade=False,
    )
    made.injected = INJECTED
    made.upstream = Upstream(HERE)
    made.upstream.transport = SimpleNamespace(write=flow.sent.append, abort=lambda: None)  # type: ignore[assignment]
    made.answer = Answer(made, made.upstream)
    made._destination = HERE
    return made


def test_a_chunked_body_is_framed_anew_and_ends_with_its_trailers():
    made = exchange()
    made.chunked_out = True
    made.body(b"abc")
    made.completed([(b"x-sum", b"1"), (b"authorization", b"x"), (b"x_key", b"y")])
    made.push()
    assert made.flow.sent == [b"3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n"]


def test_trailers_that_are_too_many_refuse_the_request():
    made = exchange()
    made.chunked_out = True
    made.completed([(b"x-a", b"1")] * 101)
    assert made.status == 400
    assert made.done


@pytest.mark.parametrize("foreign", [False, True])
def test_a_placeholder_of_another_session_does_not_leave_in_a_trailer(foreign):
    asked = []
    made = exchange()
    made.chunked_out = True
    made.granted = SimpleNamespace(foreign=lambda found: asked.append(found) or foreign)  # type: ignore[assignment]
    text = PREFIX + b"a" * 40
    made.completed([(b"x-sum", text)])
    made.push()
    assert asked == [(text,)]
    assert made.status == (403 if foreign else 0)
    assert (text in b"".join(made.flow.sent)) is not foreign


@pytest.mark.parametrize(
    ("age", "method", "body", "again"),
    [
        (1, b"GET", False, True),
        (1, b"DELETE", False, True),
        (0, b"GET", False, False),
        (1, b"POST", False, False),
        (1, b"PUT", True, False),
    ],
)
def test_a_request_that_cannot_have_been_seen_is_sent_once_more(age, method, body, again):
    made = exchange(method)
    made.upstream.age, made.has_body = age, body
    made.answer.lost("gone")
    assert (made.flow.spawned, made.status) == ((1, 0) if again else (0, 502))


def test_it_is_not_sent_a_third_time():
    made = exchange(b"GET")
    made.upstream.age = 1
    made.answer.lost("gone")
    made.answer.lost("gone")
    assert (made.flow.spawned, made.status) == (1, 502)


def test_what_was_answered_in_part_is_cut_and_not_sent_again():
    made = exchange(b"GET")
    made.upstream.age, made.status = 1, 200
    made.flow.abort = lambda: made.flow.written.append(b"aborted")
    made.answer.lost("gone")
    assert (made.flow.spawned, made.flow.written) == (0, [b"aborted"])

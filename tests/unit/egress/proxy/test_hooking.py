"""What a hook made is held to before it goes on; the rest is shown by requests through a process."""

from types import SimpleNamespace

import pytest

from handiwork.egress.hooks.wire import RequestForm
from handiwork.egress.proxy.exchange import Exchange
from handiwork.egress.proxy.heads import Refusal
from handiwork.egress.proxy.hook_link import HookFailed, HookLink
from handiwork.egress.proxy.hooking import Hooked
from handiwork.model.policy import Decision, HookUse

USE = HookUse(name="h")
READS = HookUse(name="r", body_bytes=10)
FRAMED = [(b"host", b"h"), (b"content-length", b"3"), (b"x-a", b"b")]


def hooked(*, kind: str = "sandbox") -> Hooked:
    link = HookLink("", 1.0, lambda work: work.close())
    binding = SimpleNamespace(
        identity=SimpleNamespace(kind=kind, id="egb_a"),
        plane=SimpleNamespace(hooks=link),
        spawn=lambda work: work.close(),
        closed=False,
    )
    flow = SimpleNamespace(binding=binding, write=lambda data: None)
    exchange = Exchange(
        flow,  # type: ignore[arg-type]  # what is used of a flow
        b"POST",
        b"/a?b",
        list(FRAMED),
        version="1.1",
        keep_alive=True,
        upgrade=False,
    )
    exchange.has_body = True
    exchange.hooked = made = Hooked(exchange)
    return made


def form(**changed: object) -> RequestForm:
    made = {
        "method": "POST",
        "scheme": "https",
        "host": "h.test",
        "port": 443,
        "path": "/x",
        "query": "",
        "headers": [("x-a", "c")],
        "body": None,
    }
    return RequestForm(**(made | changed))  # type: ignore[arg-type]  # a table of the test's own


def test_what_a_hook_made_takes_the_requests_place() -> None:
    made = hooked()
    made._take_over(USE, form(query="q=1", port=8443, headers=[("X-A", "c"), ("Host", "evil")]))
    exchange = made.exchange
    assert made.place is not None
    assert (made.place.host, made.place.port, exchange.target) == ("h.test", 8443, b"/x?q=1")
    assert exchange.headers == [
        (b"host", b"h.test:8443"),
        (b"content-length", b"3"),
        (b"x-a", b"c"),
    ]
    made.reset()
    assert (exchange.headers, exchange.target, made.place) == (FRAMED, b"/a?b", None)


def test_a_body_that_a_hook_made_is_framed_by_us() -> None:
    made = hooked()
    made._take_over(READS, form(body=b"12345", headers=[("content-length", "9")]))
    exchange = made.exchange
    assert exchange.headers == [(b"host", b"h.test"), (b"content-length", b"5")]
    assert exchange.waiting_body() == b"12345"


@pytest.mark.parametrize(
    "changed",
    [
        {"scheme": "ftp"},
        {"path": "x"},
        {"path": ""},
        {"path": "/ä"},
        {"host": "ä.test"},
        {"body": b"x"},
        {"headers": [("a", "b")] * 201},
    ],
)
def test_what_cannot_be_sent_fails(changed: dict[str, object]) -> None:
    with pytest.raises(HookFailed):
        hooked()._take_over(USE, form(**changed))


@pytest.mark.parametrize(
    "changed", [{"host": "a b"}, {"host": "user@h"}, {"port": 0}, {"port": 99999}]
)
def test_a_place_that_is_none_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(Refusal):
        hooked()._take_over(USE, form(**changed))


def test_hooks_wait_once_each_and_never_on_their_own_requests() -> None:
    decision = Decision(allowed=True, rules=("r",), hooks=(USE,))
    made = hooked()
    assert made.waits(decision)
    made._ran[USE.name], made._stages[USE.name] = USE, ("request",)
    assert not made.waits(decision)
    with pytest.raises(Refusal, match="pass no hook"):
        hooked(kind="hook").waits(decision)


def test_a_body_is_waited_for_only_where_a_hook_reads_it() -> None:
    for use, room in ((USE, 0), (READS, 10)):
        made = hooked()
        assert made.waits(Decision(allowed=True, rules=("r",), hooks=(use,)))
        assert made.room == room
        assert made.most_unsent(7) == (room or 7)

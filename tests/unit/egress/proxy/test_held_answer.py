"""Answers that are held back: what hooks are shown, and what the bounds are."""

import gzip
from types import SimpleNamespace

import pytest

from handiwork.egress.hooks.wire import ResponseForm
from handiwork.egress.mask import Mask
from handiwork.egress.proxy.dial import Destination
from handiwork.egress.proxy.exchange import Exchange
from handiwork.egress.proxy.held_answer import HeldAnswer, check_answer, write_whole
from handiwork.egress.proxy.hook_link import HookFailed, HookLink
from handiwork.egress.proxy.hooking import Hooked
from handiwork.egress.proxy.upstream import Upstream
from handiwork.model.policy import HookUse

KEY = b"sk-0123456789"


class Transport:
    def __init__(self) -> None:
        self.paused = self.aborted = False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def abort(self) -> None:
        self.aborted = True


class Held:
    """An answer on its way, with what was written to the guest and what was asked of hooks."""

    def __init__(self, *, body_bytes: int = 0) -> None:
        self.written = b""
        self.records: list[dict[str, object]] = []
        self.asked: list[object] = []
        self.transport = Transport()
        use = HookUse(name="h", body_bytes=body_bytes)
        flow = SimpleNamespace(
            binding=SimpleNamespace(
                identity=SimpleNamespace(kind="sandbox", id="egb_a"),
                plane=SimpleNamespace(
                    hooks=HookLink("", 1.0, lambda work: work.close()), clock=lambda: 0.0
                ),
                record=lambda **facts: self.records.append(facts),
                spawn=self._spawn,
                pool=SimpleNamespace(give=lambda *_: None),
            ),
            loop=SimpleNamespace(time=lambda: 0.0),
            origin=SimpleNamespace(scheme="https", host="h", port=443),
            finished=lambda exchange, *, close: None,
            write=self._write,
            write_paused=False,
        )
        self.exchange = Exchange(
            flow,  # type: ignore[arg-type]  # what is used of a flow
            b"GET",
            b"/",
            [],
            version="1.1",
            keep_alive=True,
            upgrade=False,
        )
        self.exchange.whole = True
        self.exchange.mask = Mask([KEY])
        self.exchange.hooked = hooked = Hooked(self.exchange)
        upstream = Upstream(Destination("https", "h", 443))
        upstream.transport = self.transport  # type: ignore[assignment]  # what is used of one
        self.exchange.upstream = upstream
        self.answer = HeldAnswer(self.exchange, upstream, hooked, [use])

    def _write(self, data: bytes) -> None:
        self.written += data

    def _spawn(self, work) -> None:
        self.asked.append(work)
        work.close()


def test_a_head_is_held_and_its_body_waits_within_bounds() -> None:
    held = Held()
    assert held.answer.answered(200, b"OK", [(b"content-length", b"9999999")])
    assert (held.transport.paused, len(held.asked)) == (True, 1)
    held.transport.paused = False  # as it is when the guest reads what came before
    held.answer.received(b"x" * 100)
    held.answer.flush()
    assert (held.written, held.transport.paused) == (b"", True)
    held.answer.received(b"x" * (1 << 20))
    held.answer.flush()
    assert b" 502 " in held.written
    assert held.exchange.done


def test_a_body_is_held_whole_within_the_rules_bound() -> None:
    held = Held(body_bytes=10)
    assert held.answer.answered(200, b"OK", [(b"content-length", b"10")])
    held.answer.received(b"x" * 10)
    held.answer.flush()
    assert (held.written, held.asked, held.transport.paused) == (b"", [], False)
    held.answer.ended(reusable=False)
    assert len(held.asked) == 1
    over = Held(body_bytes=10)
    over.answer.answered(200, b"OK", [])
    over.answer.received(b"secret words")
    over.answer.ended(reusable=False)
    assert b"over the 10 bytes" in over.written
    assert b"secret words" not in over.written
    assert over.asked == []


def test_an_upstream_that_goes_away_is_not_asked_again() -> None:
    held = Held(body_bytes=10)
    held.answer.answered(200, b"OK", [(b"content-length", b"10")])
    held.answer.lost("gone")
    assert b" 502 " in held.written
    assert held.exchange.done


def test_what_a_hook_is_shown_is_decoded_and_masked() -> None:
    held = Held(body_bytes=100)
    held.answer.answered(200, b"OK", [])
    held.answer.received(gzip.compress(b"it is " + KEY))
    coded = [
        (b"Content-Encoding", b"gzip"),
        (b"X-Key", KEY),
        (b"Connection", b"x-hop"),
        (b"X-Hop", b"1"),
    ]
    form = held.answer._form(200, coded)
    assert form.body == b"it is " + b"*" * len(KEY)
    assert form.headers == [("x-key", "*" * len(KEY))]


LONG = gzip.compress(b"x" * 101, mtime=0)
CUT = gzip.compress(b"x", mtime=0)[:-3]


@pytest.mark.parametrize("raw", [LONG, CUT, b"no gzip"], ids=["long", "cut", "other"])
def test_what_cannot_be_decoded_within_bounds_is_not_shown(raw: bytes) -> None:
    held = Held(body_bytes=100)
    held.answer.answered(200, b"OK", [])
    held.answer.received(raw)
    with pytest.raises(HookFailed):
        held.answer._form(200, [(b"content-encoding", b"gzip")])


@pytest.mark.parametrize("status", [100, 101, 199, 600, -1])
def test_a_status_that_ends_no_exchange_is_refused(status: int) -> None:
    with pytest.raises(HookFailed, match="status"):
        check_answer(ResponseForm(status=status, headers=[], body=b""))


def test_an_answer_that_a_hook_made_is_masked_and_framed() -> None:
    held = Held()
    form = ResponseForm(
        status=203, headers=[("X-A", KEY.decode()), ("content-length", "1")], body=b"a" + KEY
    )
    write_whole(held.exchange, form, Mask([KEY]), length=len(KEY) + 1)
    head, _, body = held.written.partition(b"\r\n\r\n")
    assert head.splitlines() == [
        b"HTTP/1.1 203 Non-Authoritative Information",
        b"X-A: " + b"*" * len(KEY),
        b"content-length: %d" % (len(KEY) + 1),
    ]
    assert body == b"a" + b"*" * len(KEY)

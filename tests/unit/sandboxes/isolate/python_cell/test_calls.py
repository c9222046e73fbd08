"""Calls of the host, and their answers."""

import json

import pytest

from handiwork.sandboxes.isolate.python_cell.calls import CallError, Calls
from handiwork.sandboxes.isolate.python_cell.outbox import Outbox


class Host:
    """Gives these answers, one at each time it is read."""

    def __init__(self):
        self.sent = []
        self.answers = []

    def send(self, text):
        self.sent.append(json.loads(text))

    def receive(self, seconds):
        return self.answers.pop(0)


@pytest.fixture
def host():
    return Host()


@pytest.fixture
def outbox(host):
    return Outbox(host)


@pytest.fixture
def calls(host, outbox):
    return Calls(host, outbox)


def good(number, value):
    return {"id": number, "ok": True, "v": value}


def bad(number):
    return {"id": number, "ok": False, "e": {"name": "NotFoundError", "message": "no such"}}


async def test_calls_of_a_turn_go_together_and_answers_come_in_any_order(host, outbox, calls):
    first, second = calls.call("codemode.a", {"x": 1}), calls.call("codemode.b", None)
    assert host.sent == []
    outbox.flush()
    assert [call["n"] for call in host.sent[0]["c"]] == ["codemode.a", "codemode.b"]
    assert calls.pending
    assert calls.settle({"t": "settled", "s": [good(2, "b"), good(1, "a")]}) == []
    assert (await first, await second, calls.pending) == ("a", "b", False)


async def test_a_call_that_fails_raises(calls):
    future = calls.call("codemode.a", {})
    calls.settle({"s": [bad(1)]})
    with pytest.raises(CallError, match="no such") as error:
        await future
    assert error.value.told_name == "NotFoundError"


async def test_what_nobody_waits_for_is_given_back(calls):
    future = calls.call("codemode.a", {})
    future.cancel()
    assert calls.settle({"s": [good(1, 1), good(9, 9)]}) == [good(9, 9)]
    calls.call("codemode.b", {})
    calls.begin()
    assert not calls.pending


async def test_who_asks_stands_still_and_others_are_answered_meanwhile(host, calls):
    future = calls.call("codemode.a", {})
    host.answers = [{"s": [good(1, "a")]}, {"s": [good(2, "b")]}]
    assert calls.ask("workspace.find_module", {"paths": []}) == "b"
    assert await future == "a"
    host.answers = [{"s": [bad(3)]}]
    with pytest.raises(CallError):
        calls.ask("workspace.find_module", {"paths": []})


async def test_a_call_that_cannot_be_sent_is_not_waited_for(host, calls):
    def refuse(text):
        raise ValueError("more than 32 MiB at once")

    host.send = refuse
    with pytest.raises(ValueError, match="32 MiB"):
        calls.call("codemode.a", "x" * 100_000)
    assert not calls.pending

"""What a cell says: together where it is small, alone where it is large."""

import json

import pytest

from handiwork.sandboxes.isolate import frames
from handiwork.sandboxes.isolate.python_cell import outbox as module
from handiwork.sandboxes.isolate.python_cell.outbox import Outbox, describe


class Link:
    def __init__(self):
        self.sent = []

    def send(self, text):
        ((said, _),) = frames.Reader().feed(
            len(text.encode()).to_bytes(4, "little") + text.encode()
        )
        self.sent.append(said)


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def outbox(link):
    return Outbox(link)


def test_a_turn_is_one_frame(outbox, link):
    outbox.log("log", "one")
    outbox.call(1, "codemode.a", "{}")
    outbox.call(2, "codemode.b", "[1]")
    outbox.flush()
    outbox.flush()
    (turn,) = link.sent
    assert turn.logs == (("log", "one"),)
    assert [(call.id, call.name, bytes(call.argument)) for call in turn.calls] == [
        (1, "codemode.a", b"{}"),
        (2, "codemode.b", b"[1]"),
    ]


def test_what_is_large_goes_alone_and_in_its_turn(outbox, link):
    outbox.log("log", "before")
    outbox.call(1, "workspace.write", json.dumps("x" * (2 << 20)))
    outbox.log("log", "after")
    outbox.flush()
    assert [len(turn.calls) for turn in link.sent] == [0, 1, 0]
    assert [turn.logs for turn in link.sent] == [(("log", "before"),), (), (("log", "after"),)]


def test_nothing_is_lost_between_frames(outbox, link):
    for number in range(100):
        outbox.log("log", f"{number} " + "\x01" * 2000)
        outbox.call(number, "codemode.a", json.dumps("y" * 1000))
    outbox.flush()
    assert len(link.sent) > 1
    assert [line[1].split()[0] for turn in link.sent for line in turn.logs] == [
        str(n) for n in range(100)
    ]
    assert [call.id for turn in link.sent for call in turn.calls] == list(range(100))


def test_a_line_is_cut(outbox, link):
    outbox.log("error", "x" * 20_000)
    outbox.flush()
    assert link.sent[0].logs[0][1] == "x" * module.LINE_CHARACTERS + "… (20000 characters)"


def test_the_end_of_a_run(outbox, link):
    outbox.log("log", "last")
    outbox.call(1, "codemode.a", "{}")
    outbox.succeed("[1]")
    last, done = link.sent
    assert (last.logs, last.calls) == ((("log", "last"),), ())
    assert (done.ok, bytes(done.value)) == (True, b"[1]")


def failing():
    raise ValueError("it is no good")


def caught():
    try:
        failing()
    except ValueError as error:
        return error
    raise AssertionError("it did not fail")


def test_an_error_has_its_stack_from_its_code_on(outbox, link):
    told = describe(caught(), __file__)
    assert (told["name"], told["message"]) == ("ValueError", "it is no good")
    assert told["stack"].count("File ") == 2
    assert describe(caught(), "/workspace/other.py")["stack"] == ""
    outbox.fail(caught(), __file__)
    assert (link.sent[0].ok, link.sent[0].error.stack) == (False, told["stack"])


class Worst(Exception):
    def __str__(self):
        raise RuntimeError


def test_an_error_that_cannot_be_shown_is_told_all_the_same():
    assert describe(Worst(), "x")["message"] == "(an error that cannot be shown)"


def test_an_error_is_cut():
    assert len(describe(ValueError("x" * 100_000), "x")["message"]) == module.ERROR_CHARACTERS

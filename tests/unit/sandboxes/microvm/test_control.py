"""The control port against a machine that answers, complains, is silent, or talks nonsense."""

import socket

import pytest

from handiwork.model.errors import SandboxUnavailableError
from handiwork.sandboxes.microvm import orders
from handiwork.sandboxes.microvm.control import Control

READY = b"\0\0\0\0\x40"


@pytest.fixture
async def ends():
    ours, theirs = socket.socketpair()
    control = Control(ours)
    yield control, theirs
    control.close()
    theirs.close()


async def test_an_order_is_sent_and_waited_for(ends):
    control, theirs = ends
    theirs.sendall(READY + READY)
    await control.ready(5)
    await control.order(orders.hold(), 5)
    assert theirs.recv(100) == orders.hold()


async def test_who_is_busy_is_told_and_takes_the_next_order(ends):
    control, theirs = ends
    theirs.sendall(b"\0\0\0\0\x42" + READY)
    with pytest.raises(SandboxUnavailableError, match="did not stand still"):
        await control.order(orders.hold(), 5)
    await control.order(orders.hold(), 5)


async def test_an_answer_is_not_taken_for_that_to_another_order(ends):
    control, theirs = ends
    with pytest.raises(SandboxUnavailableError, match="within"):
        await control.order(orders.hold(), 0.01)
    theirs.sendall(READY)
    with pytest.raises(SandboxUnavailableError, match="owes an answer"):
        await control.order(orders.hold(), 5)


@pytest.mark.parametrize("late", [READY, b"\0\0\0\0\x42"], ids=["ready", "busy"])
async def test_an_answer_that_is_owed_is_waited_for_before_the_next_order(ends, late):
    control, theirs = ends
    await control.settle(0.01)  # nothing is owed
    with pytest.raises(SandboxUnavailableError, match=r"within 0\.05 s"):
        await control.order(orders.hold(), 0.05)
    with pytest.raises(SandboxUnavailableError, match=r"within 0\.05 s"):
        await control.settle(0.05)
    theirs.sendall(late + READY)
    await control.settle(5)
    await control.order(orders.hold(), 5)


async def test_the_reason_of_an_end_is_told_printable(ends):
    control, theirs = ends
    theirs.sendall(b"\x0b\0\0\0\x41overlay\x1b: x")
    with pytest.raises(SandboxUnavailableError, match=r"overlay\?: x"):
        await control.ready(5)


async def test_last_words_are_had_without_an_order(ends):
    control, theirs = ends
    theirs.sendall(b"\3\0\0\0\x41why")
    assert await control.last_words() == "why"
    theirs.close()
    assert await control.last_words() == ""


async def test_silence_and_nonsense(ends):
    control, theirs = ends
    with pytest.raises(SandboxUnavailableError, match=r"within 0\.05 s"):
        await control.ready(0.05)
    theirs.sendall(b"\xff" * 5)
    with pytest.raises(SandboxUnavailableError, match="answer 255"):
        await control.ready(5)
    theirs.close()
    with pytest.raises(SandboxUnavailableError, match=r"gone|no order"):
        await control.order(orders.hold(), 5)

"""Orders against the layout of PROTOCOL.md, and answers that are none."""

import struct

import pytest

from handiwork.sandboxes.microvm import orders


def test_a_start_is_laid_out_as_the_protocol_says():
    order = orders.Start(owner=7, files={"/a": b"1", "/d": b""}, arguments=["-x"])
    made = orders.start(orders.Moment(5, b"ee"), order)
    text = lambda data: struct.pack("<I", len(data)) + data  # noqa: E731
    payload = struct.pack("<Q", 5) + text(b"ee") + struct.pack("<II", 7, 2)
    payload += text(b"/a") + text(b"1") + text(b"/d") + text(b"")
    payload += struct.pack("<I", 1) + text(b"-x")
    assert made == struct.pack("<IB", len(payload), 1) + payload


def test_the_small_orders():
    moment = orders.Moment(9, b"x")
    assert orders.resume(moment) == struct.pack("<IBQI", 13, 2, 9, 1) + b"x"
    assert orders.hold() == b"\0\0\0\0\3"
    claim = struct.pack("<IBQI", 24, 4, 9, 1) + b"x" + b"\1\0\0\0n" + b"\2\0\0\0ca"
    assert orders.claim(moment, "n", "ca") == claim


def test_an_order_has_a_limit():
    with pytest.raises(orders.OrderError, match="at most"):
        orders.resume(orders.Moment(1, bytes(5 << 20)))


def test_answers():
    assert orders.answer_head(b"\0\0\0\0\x40") == (64, 0)
    assert orders.answer_head(b"\5\0\0\0\x41") == (65, 5)
    assert orders.answer_head(b"\0\0\0\0\x42") == (66, 0)


@pytest.mark.parametrize("head", [b"\0\0\0\0\0", b"\1\0\0\0\x40", b"\0\0\1\0\x41", b"\xff" * 5])
def test_what_is_no_answer(head):
    with pytest.raises(orders.OrderError):
        orders.answer_head(head)

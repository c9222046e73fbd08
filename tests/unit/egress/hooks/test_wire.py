"""Frames, whatever bytes come."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.egress.hooks.wire import (
    MAX_FRAME_BYTES,
    MAX_HEADERS,
    Call,
    Caller,
    Denied,
    Frames,
    RequestForm,
    checked_head,
    decode_call,
    decode_from_hooks,
    frame,
)

CALLER = Caller(tenant="t", agent_id="a", session_id="s", sandbox_id="b", tool="", tool_use_id="")
FORM = RequestForm(
    method="GET",
    scheme="https",
    host="h",
    port=443,
    path="/",
    query="",
    headers=[("x-a", "ÿ")],
    body=b"\0",
)


@given(st.lists(st.text(max_size=40), max_size=5), st.integers(1, 7))
def test_frames_come_whole_however_they_are_cut(reasons: list[str], size: int) -> None:
    data = b"".join(frame(Denied(id=1, reason=reason)) for reason in reasons)
    frames = Frames()
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    told = [decode_from_hooks(one) for piece in pieces for one in frames.take(piece)]
    assert [one.reason for one in told] == reasons  # type: ignore[union-attr]  # all are Denied


@given(st.binary(max_size=200))
def test_bytes_that_are_no_frames_end_in_an_error_or_nothing(data: bytes) -> None:
    try:
        for payload in Frames().take(data):
            decode_from_hooks(payload)
    except (ValueError, msgspec.MsgspecError):
        pass


def test_too_large_a_frame_is_neither_sent_nor_waited_for() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        frame(Denied(id=1, reason="x" * MAX_FRAME_BYTES))
    with pytest.raises(ValueError, match="over the limit"):
        list(Frames().take((MAX_FRAME_BYTES + 1).to_bytes(4, "little")))


def test_a_call_comes_back_and_shows_no_secret() -> None:
    call = Call(
        id=1, hook="h", stage="request", caller=CALLER, request=FORM, secrets={"k": "sk-012345"}
    )
    [payload] = Frames().take(frame(call))
    assert decode_call(payload) == call
    assert "sk-012345" not in repr(call)


def test_heads_have_bounds() -> None:
    assert checked_head([("a", "b")]) == ""
    assert "more than" in checked_head([("a", "b")] * (MAX_HEADERS + 1))
    assert "characters" in checked_head([("a", "b" * 70_000)])
    assert "latin-1" in checked_head([("a", "…")])

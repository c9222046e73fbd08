"""Answers put together from pieces, within limits."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local.models import Text, ToolCall
from handiwork.brains.local.providers import pieces as module
from handiwork.brains.local.providers.pieces import (
    ExcessiveError,
    OpenText,
    Pieces,
    count_of,
    fits,
    text_of,
)


def deaf(_block: int, _text: str) -> None:
    pass


def called(text: str) -> ToolCall:
    pieces = Pieces(deaf)
    call = pieces.open_call("t")
    pieces.add_input(call, text)
    (block,) = pieces.blocks()
    assert isinstance(block, ToolCall)
    return block


def test_a_text_is_a_block_from_its_first_word_and_is_told_by_its_number():
    told = []
    pieces = Pieces(lambda block, text: told.append((block, text)))
    silent, loud = OpenText(), OpenText()
    pieces.say(silent, "")
    pieces.open_call("t")
    pieces.say(loud, "a")
    pieces.say(loud, "b")
    assert pieces.blocks() == (ToolCall("t", {}), Text("ab"))
    assert told == [(1, "a"), (1, "b")]


@pytest.mark.parametrize(
    "text",
    ["{", "[1]", '"a"', "NaN", '{"a": NaN}', '{"a": "\\ud800"}', "{" * 5000, "[" * 100_000, "null"],
)
def test_an_input_that_is_no_object_is_a_fault_of_the_call(text):
    call = called(text)
    assert call.fault
    assert call.input == {}


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False) | st.text()))
def test_any_object_arrives_or_is_a_fault(given_input):
    call = called(json.dumps(given_input))
    assert call.fault or json.loads(json.dumps(call.input)) == pytest.approx(given_input)


@given(st.text())
def test_any_text_is_an_input_or_a_fault(text):
    call = called(text)
    assert call.fault == "" or call.input == {}


@pytest.mark.parametrize(
    ("limit", "use"),
    [
        ("MAX_TEXT", lambda p: [p.say(OpenText(), "ab") for _ in range(5)]),
        ("MAX_ARGUMENTS", lambda p: p.add_input(p.open_call("t"), "abcdef")),
        ("MAX_CALLS", lambda p: [p.open_call("t") for _ in range(5)]),
        ("MAX_BLOCKS", lambda p: [p.say(OpenText(), "a") for _ in range(5)]),
    ],
)
def test_every_size_has_a_limit(limit, use, monkeypatch):
    monkeypatch.setattr(module, limit, 4)
    with pytest.raises(ExcessiveError, match="more than 4"):
        use(Pieces(deaf))


def test_what_is_no_text_or_count_is_none():
    assert [text_of(value) for value in ("a", None, 3, ["x"])] == ["a", "", "", ""]
    assert [count_of(v) for v in (5, -1, True, "5", 10**12, 1.5)] == [5, 0, 0, 0, 0, 0]
    deep: object = 1
    for _ in range(200):
        deep = [deep]
    assert fits({"a": [1, {"b": 2}]})
    assert not fits(deep)

"""A result of one text is always one that a brain takes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.model.tool import TextBlock, ToolCall, text_result

CALL = ToolCall(id="toolu_1", session_id="sesn_1", name="bash", input={})


def text(given: str) -> str:
    (block,) = text_result(CALL, given).content
    assert isinstance(block, TextBlock)
    return block.text


@given(st.text(st.characters(), max_size=100))
def test_any_text_becomes_well_formed(given: str) -> None:
    shown = text(given)
    assert shown
    assert shown.encode().decode() == shown
    if given and not any(0xD800 <= ord(c) <= 0xDFFF or c == "\0" for c in given):
        assert shown == given


@pytest.mark.parametrize(
    ("given", "shown"), [("", "(no output)"), ("a\ud800b\0", "a\ufffdb\ufffd")]
)
def test_what_cannot_be_sent(given: str, shown: str) -> None:
    assert text(given) == shown


def test_it_answers_its_call() -> None:
    custom = ToolCall(id="toolu_2", session_id="sesn_1", name="own", input={}, custom=True)
    result = text_result(custom, "no", is_error=True)
    assert (result.tool_use_id, result.custom, result.is_error) == ("toolu_2", True, True)
    assert not text_result(CALL, "yes").is_error

"""What is left of a conversation that does not fit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local import compaction
from handiwork.brains.local.models import (
    Media,
    Message,
    Profile,
    Text,
    ToolCall,
    ToolOffer,
    ToolResult,
)
from handiwork.brains.local.transcript import Transcript, Unit, tokens_of_text, weight

PROFILE = Profile(context_tokens=10_000, max_output_tokens=2_000)


def unit(position: int, text: str) -> Unit:
    return Unit(position, (Message("user", (Text(text),)),))


def worked(position: int, text: str) -> Unit:
    call = ToolCall("write", {"content": text, "deep": {"a": [text]}}, "c")
    result = ToolResult("write", text, content=(Text(text), Media("image", {"data": "x"})))
    return Unit(position, (Message("assistant", (call,)), Message("user", (result,))))


def held(*units: Unit, tokens: int = 0, summary: str | None = None) -> Transcript:
    return Transcript(summary=summary, units=units, tokens=tokens)


@pytest.mark.parametrize(("tokens", "full"), [(6_000, False), (7_000, True)])
def test_it_is_full_before_the_window_is(tokens, full):
    assert compaction.is_full(held(tokens=tokens), PROFILE) is full


def test_the_newest_units_are_kept_and_always_the_last():
    units = [unit(n, "x" * 3000) for n in range(5)]
    older, kept = compaction.split(held(*units), PROFILE)
    assert [each.position for each in kept] == [3, 4]
    assert len(older) == 3
    older, kept = compaction.split(held(unit(0, "x"), unit(1, "x" * 90_000)), PROFILE)
    assert [each.position for each in kept] == [1]


def test_a_summary_is_asked_of_all_that_goes_within_the_window():
    transcript = held(worked(0, "y" * 90_000), summary="what was before")
    request = compaction.summary_request(transcript, transcript.units, PROFILE)
    text = request.history[0].blocks[0].text
    assert "what was before" in text
    assert "called write" in text
    assert tokens_of_text(text) < compaction.room(PROFILE)


def test_without_a_summary_the_first_message_of_the_user_remains():
    said = compaction.summary_of("  ", (worked(0, "w"), unit(1, "the task")))
    assert "dropped" in said
    assert "the task" in said
    assert compaction.summary_of(" short ", ()).endswith("\n\nshort")
    assert len(compaction.summary_of("s" * 10**6, ())) < 50_000


@given(
    st.lists(st.builds(worked, st.integers(0, 9), st.text(max_size=30_000)), min_size=1, max_size=6)
)
def test_what_is_fitted_fits_and_keeps_calls_with_their_results(units):
    fitted = compaction.fitted(held(*units, summary="s" * 50_000), 1_000)
    assert weight(fitted.units) + tokens_of_text(fitted.summary) <= 1_000
    for each in fitted.units:
        assert [type(message.blocks[0]) for message in each.messages] == [ToolCall, ToolResult]


def test_what_fits_after_little_cutting_loses_little():
    fitted = compaction.fitted(held(unit(0, "a" * 30_000), unit(1, "short")), 8_000)
    assert fitted.units[1] == unit(1, "short")
    assert "10000 characters left out" in fitted.units[0].messages[0].blocks[0].text


def test_tools_and_system_count():
    tool = ToolOffer("n", "d" * 300, {"type": "object"})
    assert compaction.fixed_tokens("s" * 300, (tool,)) > 200

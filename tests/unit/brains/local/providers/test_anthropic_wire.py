"""The Messages API's JSON, both ways; the streams are hostile."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handiwork.brains.local.models import (
    Media,
    Message,
    ModelRequest,
    Text,
    ToolCall,
    ToolOffer,
    ToolResult,
    Usage,
)
from handiwork.brains.local.providers.anthropic_wire import Answer, body
from handiwork.brains.local.providers.pieces import ExcessiveError, MalformedError
from provider_stand_in import anthropic_events

CACHED = {"type": "ephemeral"}


def read(events):
    answer = Answer(lambda _block, _text: None)
    for event in events:
        answer.take(event)
    return answer.done()


def test_a_request_marks_what_the_next_one_reads_from_the_cache():
    pdf = Media("document", {"type": "base64", "media_type": "application/pdf", "data": "x"}, "T")
    history = (
        Message("user", (Text("hi"), pdf)),
        Message("assistant", (ToolCall("bash", {"a": 1}, "c"),)),
        Message("user", (ToolResult("bash", "bad", True, "c"),)),
    )
    tool = ToolOffer("bash", "d", {"properties": {}})
    made = body(ModelRequest(system="s", history=history, tools=(tool,)), "m", 10)
    assert made["system"] == [{"type": "text", "text": "s", "cache_control": CACHED}]
    assert made["tools"][0]["input_schema"] == {"type": "object", "properties": {}}
    assert made["tools"][-1]["cache_control"] == CACHED
    first, second, third = made["messages"]
    assert first["content"][1]["title"] == "T"
    assert second["content"] == [{"type": "tool_use", "id": "c", "name": "bash", "input": {"a": 1}}]
    assert third["content"][0]["cache_control"] == CACHED
    assert third["content"][0]["is_error"] is True
    assert third["content"][0]["content"] == [{"type": "text", "text": "bad"}]


def test_counts_of_the_end_replace_those_of_the_beginning():
    usage = read(anthropic_events("hi", usage=(7, 9), cached=(3, 2))).usage
    assert usage == Usage(
        input_tokens=7, output_tokens=9, cache_read_tokens=3, cache_write_tokens=2
    )
    assert usage.total == 21


@pytest.mark.parametrize(
    ("reason", "stop"),
    [
        ("end_turn", "end"),
        ("max_tokens", "length"),
        ("pause_turn", "pause"),
        ("refusal", "refusal"),
        ("yet_to_come", "end"),
    ],
)
def test_reasons_to_stop(reason, stop):
    assert read(anthropic_events("hi", stop=reason)).stop == stop


def test_a_refused_answer_calls_nothing_and_says_why():
    events = anthropic_events("no", [("c", "bash", {})], stop="refusal")
    events[-2]["delta"]["stop_details"] = {"type": "refusal", "category": "bio", "explanation": 5}
    response = read(events)
    assert response.blocks == (Text("no"),)
    assert response.refusal == {"category": "bio", "explanation": None}


def test_blocks_of_other_kinds_are_passed_over():
    thinking = [
        {"type": "content_block_start", "index": 9, "content_block": {"type": "thinking"}},
        {"type": "content_block_delta", "index": 9, "delta": {"type": "thinking_delta"}},
    ]
    events = anthropic_events("hi")
    assert read([events[0], *thinking, *events[1:]]).blocks == (Text("hi"),)


@pytest.mark.parametrize(
    "change",
    [
        lambda events: events[:-1],
        lambda events: [*events[:2], *events[1:]],
        lambda events: [events[0], *events[2:]],
        lambda events: [*events[:2], {"type": "content_block_delta"}, *events[2:]],
    ],
)
def test_events_that_do_not_fit_are_no_answer(change):
    with pytest.raises(MalformedError):
        read(change(anthropic_events("hello")))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                ["index", "delta", "content_block", "usage", "message", "text", "name", "input"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
KINDS = [
    "message_start",
    "content_block_start",
    "content_block_delta",
    "message_delta",
    "message_stop",
]


@given(
    st.lists(
        st.builds(
            lambda kind, rest: {**(rest if isinstance(rest, dict) else {}), "type": kind},
            st.sampled_from(KINDS),
            JSON,
        )
        | JSON,
        max_size=8,
    )
)
def test_any_events_are_an_answer_or_refused(events):
    with contextlib.suppress(MalformedError, ExcessiveError):
        assert read(events).stop

"""Chat completions, both ways, as servers that call themselves compatible write them."""

import contextlib
import json

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
from handiwork.brains.local.providers.openai_wire import Answer, Dialect, body, has_images
from handiwork.brains.local.providers.pieces import ExcessiveError, MalformedError
from provider_stand_in import openai_chunks

IMAGE = Media("image", {"type": "base64", "media_type": "image/png", "data": "QQ=="})
LINK = Media("image", {"type": "url", "url": "https://x.test/a.png"})
PDF = Media("document", {"type": "base64", "media_type": "application/pdf", "data": "QQ=="})


def read(chunks):
    answer = Answer(lambda _block, _text: None)
    for chunk in chunks:
        answer.take(chunk)
    return answer.done()


def delta(finish=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def piece(arguments=None, *, name=None, index=None, id=None):
    function = {key: v for key, v in (("name", name), ("arguments", arguments)) if v is not None}
    given = {"index": index, "id": id, "function": function}
    return delta(tool_calls=[{key: value for key, value in given.items() if value is not None}])


END = delta("tool_calls")
BOTH = (ToolCall("a", {"x": 1}), ToolCall("b", {"y": 2}))


@pytest.mark.parametrize(
    "chunks",
    [
        [
            piece('{"x"', name="a", index=0, id="1"),
            piece('{"y": 2}', name="b", index=1, id="2"),
            piece(": 1}", index=0),
        ],
        [
            piece('{"x": 1}', name="a", index=0, id="1"),
            piece('{"y": 2}', name="b", index=0, id="2"),
        ],
        [piece('{"x": 1}', name="a", id="1"), piece('{"y": 2}', name="b", id="2")],
        [piece('{"x": ', name="a"), piece("1}"), piece('{"y"', name="b"), piece(": 2}")],
        [piece({"x": 1}, name="a"), piece({"y": 2}, name="b")],
        [
            piece('{"x"', name="a", id="1"),
            piece(": 1}", id="1"),
            piece('{"y": 2}', name="b", id="2"),
        ],
        [
            piece(name="a", index=0),
            piece('{"x": 1}', index=0),
            piece('{"y": 2}', name="b", index=1),
        ],
        [
            delta(
                tool_calls=[
                    {"id": "1", "function": {"name": "a", "arguments": '{"x": 1}'}},
                    {"id": "2", "function": {"name": "b", "arguments": '{"y": 2}'}},
                ]
            )
        ],
    ],
    ids=[
        "index",
        "index always 0",
        "ids only",
        "names only",
        "objects",
        "id repeated",
        "late",
        "one",
    ],
)
def test_parallel_calls_as_servers_tell_them_apart(chunks):
    assert read([*chunks, END]).blocks == BOTH


@pytest.mark.parametrize(
    ("finish", "stop"),
    [
        ("stop", "end"),
        ("tool_calls", "end"),
        ("function_call", "end"),
        ("eos", "end"),
        ("length", "length"),
        ("content_filter", "refusal"),
    ],
)
def test_reasons_to_stop(finish, stop):
    assert read(openai_chunks("hi", finish=finish)).stop == stop


def test_an_input_that_is_not_json_is_a_fault_of_the_call():
    (call,) = read([piece('{"x": ', name="a", index=0), END]).blocks
    assert call.fault


def test_null_content_reasoning_refusals_and_parts():
    chunks = [
        delta(content=None, reasoning_content="hm", reasoning="hm"),
        delta(content=[{"type": "text", "text": "a"}, {"type": "thinking"}, 5]),
        delta(refusal="no"),
        {"choices": [{"index": 1, "delta": {"content": "another choice"}}]},
        delta("stop"),
    ]
    assert read(chunks).blocks == (Text("ano"),)


def test_an_answer_that_comes_whole():
    message = {"role": "assistant", "content": "hi", "tool_calls": None}
    whole = {"choices": [{"message": message, "finish_reason": "stop"}]}
    response = read([whole])
    assert (response.blocks, response.usage) == ((Text("hi"),), Usage())


def test_cached_tokens_are_counted_apart():
    usage = {
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    response = read([*openai_chunks("hi", usage=None), {"choices": [], "usage": usage}])
    assert response.usage == Usage(input_tokens=6, output_tokens=3, cache_read_tokens=4)


@pytest.mark.parametrize("chunks", [[], [{"choices": []}], openai_chunks("hi", finish=None)])
def test_a_stream_without_an_end_is_no_answer(chunks):
    with pytest.raises(MalformedError):
        read(chunks)


def history():
    return (
        Message("user", (Text("hi"), LINK)),
        Message("assistant", (ToolCall("t", {"a": 1}, "c1"), ToolCall("t", {}, "c2"))),
        Message(
            "user",
            (
                ToolResult("t", "one", True, "c1", (Text("one"), IMAGE, PDF)),
                ToolResult("t", "two", False, "c2"),
                Text("go on"),
            ),
        ),
    )


def test_results_hold_text_and_images_follow_in_a_message():
    request = ModelRequest(system="s", history=history())
    made = body(request, "m", 5, Dialect())
    roles = [message["role"] for message in made["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "tool", "user"]
    system, first, said, one, two, last = made["messages"]
    assert first["content"][1]["image_url"]["url"] == "https://x.test/a.png"
    assert said["content"] is None
    assert json.loads(said["tool_calls"][0]["function"]["arguments"]) == {"a": 1}
    assert one["content"].startswith("Error: one\n[2 attached")
    assert (two["tool_call_id"], two["content"]) == ("c2", "two")
    assert last["content"][0]["image_url"]["url"] == "data:image/png;base64,QQ=="
    assert last["content"][1]["text"] == "[document: this model is not shown it]"
    assert system["content"] == "s"
    assert has_images(request)


def test_a_server_that_takes_no_images_gets_words():
    made = body(ModelRequest(system="", history=history()), "m", 5, Dialect(images=False))
    assert "image_url" not in json.dumps(made)
    assert isinstance(made["messages"][0]["content"], str)
    assert not has_images(ModelRequest(system="", history=history()[1:2]))


def test_options_are_left_out_where_they_are_refused():
    made = body(ModelRequest(system=""), "m", 5, Dialect())
    assert (made["max_tokens"], made["stream_options"]) == (5, {"include_usage": True})
    other = Dialect(usage_option=False, completion_tokens=True)
    made = body(ModelRequest(system=""), "m", 5, other)
    assert made["max_completion_tokens"] == 5
    assert not {"max_tokens", "stream_options", "tools"} & set(made)


def test_patterns_with_lookaround_are_left_out_of_schemas():
    schema = {
        "properties": {
            "a": {"type": "string", "pattern": "^(?!x)"},
            "b": {"anyOf": [{"pattern": "(?<=a)b"}, {"pattern": "^(?:a|b)$"}]},
            "pattern": {"type": "string"},
        }
    }
    tool = ToolOffer("t", "d", schema)
    made = body(ModelRequest(system="", tools=(tool,)), "m", 5, Dialect())
    sent = made["tools"][0]["function"]["parameters"]
    assert sent["properties"]["a"] == {"type": "string"}
    assert sent["properties"]["b"] == {"anyOf": [{}, {"pattern": "^(?:a|b)$"}]}
    assert sent["properties"]["pattern"] == {"type": "string"}
    assert sent["type"] == "object"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.sampled_from(["", "a", "{}", "stop"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "choices",
                    "delta",
                    "message",
                    "content",
                    "tool_calls",
                    "function",
                    "name",
                    "id",
                    "index",
                    "arguments",
                    "usage",
                    "finish_reason",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=15,
)
CALLS = st.lists(
    st.builds(
        piece,
        st.sampled_from(["", "{", "}", '{"a": 1}', None]),
        name=st.sampled_from(["a", "b", "", None]),
        index=st.sampled_from([0, 1, None, "0", True]),
        id=st.sampled_from(["1", "2", "", None]),
    ),
    max_size=8,
)


@given(st.lists(JSON, max_size=5), CALLS)
def test_any_chunks_are_an_answer_or_refused(chunks, calls):
    with contextlib.suppress(MalformedError, ExcessiveError):
        assert read([*chunks, *calls, END]).stop

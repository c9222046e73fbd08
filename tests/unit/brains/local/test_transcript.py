"""Events as a conversation: pairs stay together, whatever came between them."""

from hypothesis import assume, given
from hypothesis import strategies as st

from handiwork.brains.local.models import Media, Text, ToolCall, ToolResult
from handiwork.brains.local.transcript import (
    NOTHING,
    UNANSWERED,
    contents,
    estimate,
    transcript,
    weight,
)

NOW = "2026-01-01T00:00:00Z"


def event(kind: str, **more):
    return {"type": kind, "processed_at": NOW, "id": "e", **more}


def said(kind: str, text: str):
    return event(kind, content=[{"type": "text", "text": text}])


def user(text: str):
    return said("user.message", text)


def agent(text: str):
    return said("agent.message", text)


def call(call_id: str, kind: str = "agent.tool_use"):
    return event(kind, id=call_id, name="bash", input={})


def result(call_id: str, text: str = "out"):
    return {**said("user.tool_result", text), "tool_use_id": call_id}


def end(tokens: int = 0, *, failed: bool = False):
    usage = {"input_tokens": tokens, "output_tokens": 0}
    return event("span.model_request_end", model_usage=usage, is_error=failed)


def read(*events, marker=None, fixed=0):
    return transcript(enumerate(events), marker, fixed)


def test_results_follow_their_calls_in_the_order_of_the_calls():
    held = read(user("go"), call("a"), call("b"), end(), result("b", "2"), result("a", "1"))
    messages = held.messages()
    assert [message.role for message in messages] == ["user", "assistant", "user"]
    assert [block.id for block in messages[1].blocks] == ["a", "b"]
    assert [block.text for block in messages[2].blocks] == ["1", "2"]
    assert [unit.position for unit in held.units] == [0, 1]


def test_a_denied_call_among_others_stays_in_its_response():
    denied = {**said("agent.tool_result", "no"), "tool_use_id": "a", "is_error": True}
    messages = read(user("go"), call("a"), denied, call("b"), end(), result("b")).messages()
    assert [block.id for block in messages[1].blocks] == ["a", "b"]
    assert messages[2].blocks[0] == ToolResult("", "no", True, "a", (Text("no"),))


def test_a_name_that_a_model_made_up_can_be_sent_back():
    called = [{**call(str(n)), "name": name} for n, name in enumerate(["", "a b.c!", "bash"])]
    held = read(user("go"), *called, end())
    assert [each.name for each in held.messages()[1].blocks] == ["unnamed", "a_b_c_", "bash"]


def test_responses_after_another_are_kept_apart():
    messages = read(user("go"), call("a"), end(), result("a"), call("b"), end(), result("b"))
    assert [message.role for message in messages.messages()] == ["user", "assistant"] * 2 + ["user"]


def test_a_call_without_a_result_gets_one():
    custom = call("a", "agent.custom_tool_use")
    messages = read(user("go"), custom, end(), user("stop that")).messages()
    assert messages[2].blocks == (
        ToolResult("bash", UNANSWERED, True, "a"),
        Text("stop that"),
    )


def test_empty_results_texts_and_waiting_messages():
    empty = {**event("user.tool_result", content=[]), "tool_use_id": "a"}
    waiting = {**user("later"), "processed_at": None}
    messages = read(user("go"), agent(" "), call("a"), end(), empty, waiting).messages()
    assert messages[1].blocks == (ToolCall("bash", {}, "a"),)
    assert messages[2].blocks[0].content == (Text(NOTHING),)
    assert "later" not in str(messages)


def test_the_provider_s_count_holds_and_what_came_after_is_estimated():
    first = read(user("x" * 300), fixed=50)
    assert first.tokens == 150
    counted = read(user("x" * 300), agent("y"), end(1000), user("z" * 30))
    assert counted.tokens == 1010
    assert read(user("x" * 30), end(99, failed=True)).tokens == 10
    after = read(user("x" * 30), end(1000), marker=(5, "s" * 30), fixed=1)
    assert after.tokens == 1 + 10 + 10
    assert after.messages()[0].blocks[0] == Text("s" * 30)


def test_what_has_no_text_is_shown_or_named():
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "a"}}
    document = {"type": "document", "source": {"type": "text", "data": "words"}, "title": None}
    file = {"type": "document", "source": {"type": "file", "file_id": "f"}}
    found = {"type": "search_result", "source": "s", "title": "t", "content": []}
    shown = contents([image, document, file, found])
    assert shown[0] == Media("image", image["source"])
    assert shown[1:3] == (Text("words"), Text("[document: not shown]"))
    assert '"title": "t"' in shown[3].text
    assert estimate(shown[0]) > 1000


EVENTS = st.lists(
    st.one_of(
        st.builds(user, st.text(max_size=5)),
        st.builds(agent, st.text(max_size=5)),
        st.builds(call, st.sampled_from("abc")),
        st.builds(result, st.sampled_from("abcd")),
        st.builds(end, st.integers(0, 100)),
    ),
    max_size=20,
)


@given(EVENTS)
def test_any_events_make_a_conversation_that_a_provider_takes(events):
    # An id is called once.
    ids = [each["id"] for each in events if each["type"] == "agent.tool_use"]
    assume(len(ids) == len(set(ids)))
    held = read(*events)
    messages = held.messages()
    assert [m.role for m in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"] * (
        len(messages) % 2
    )
    for number, message in enumerate(messages):
        calls = [block.id for block in message.blocks if isinstance(block, ToolCall)]
        following = messages[number + 1].blocks if number + 1 < len(messages) else ()
        answered = [block.id for block in following if isinstance(block, ToolResult)]
        assert answered == calls
        assert message.blocks
    assert held.tokens >= 0
    assert weight(held.units) >= 0

"""A turn's rules: what opens it, what settles a call, what ends it, what is told."""

import itertools

import pytest

from handiwork.brains.local import turn as rules
from handiwork.brains.local.models import ModelResponse, Text, ToolCall, ToolResult
from handiwork.brains.local.turn import EventRefusedError, Turn, UnknownCallError

POLICY = {"enabled": True, "permission_policy": {"type": "always_allow"}}
ASK = {"name": "write", "enabled": True, "permission_policy": {"type": "always_ask"}}
OFF = {"name": "edit", "enabled": False, "permission_policy": {"type": "always_allow"}}
TOOLS = [
    {"type": rules.TOOLSET, "default_config": POLICY, "configs": [ASK, OFF]},
    {"type": "custom", "name": "mine", "description": "d", "input_schema": {}},
]


def told(outcome) -> list[str]:
    return [event["type"] for event in outcome.events]


def opened(text: str = "go") -> Turn:
    return rules.message(Turn(), {"type": "user.message", "id": "m1"}, text).turn


def called(*names: str):
    ids = (f"call{number}" for number in itertools.count(1))
    response = ModelResponse(blocks=tuple(ToolCall(name, {}) for name in names))
    return rules.answer(opened(), response, TOOLS, "span", lambda: next(ids))


def settle(turn: Turn, call_id: str, kind: str = "tool"):
    return rules.result(turn, {"type": "result"}, kind, call_id, ToolResult("", "out"))


def test_a_message_opens_a_turn_and_the_model_is_due():
    turn = opened()
    assert (turn.open, turn.model_due, turn.status) == (True, True, "running")
    assert rules.request(turn, "s").message == "go"


def test_an_answer_without_calls_ends_the_turn():
    response = ModelResponse(blocks=(Text("hi"),), input_tokens=2, output_tokens=3)
    outcome = rules.answer(opened(), response, TOOLS, "span", lambda: "x")
    assert told(outcome) == [
        "agent.message",
        "span.model_request_end",
        "session.usage",
        "session.status_idle",
    ]
    assert not outcome.turn.open
    assert outcome.events[2]["usage"] == {"input_tokens": 2, "output_tokens": 3}


def test_calls_are_awaited_and_then_the_model_is_due_with_results_in_order():
    outcome = called("bash", "mine")
    assert outcome.turn.status == "idle"
    assert outcome.events[-1]["stop_reason"]["event_ids"] == ["call1", "call2"]
    after = settle(outcome.turn, "call2", "custom")
    assert after.events[-1]["stop_reason"]["event_ids"] == ["call1"]
    last = settle(after.turn, "call1")
    assert told(last) == ["result", "session.status_running"]
    assert [each.name for each in rules.request(last.turn, "").results] == ["bash", "mine"]


def test_a_call_is_settled_once():
    turn = settle(called("bash", "bash").turn, "call1").turn
    with pytest.raises(UnknownCallError):
        settle(turn, "call1")
    with pytest.raises(UnknownCallError):
        settle(turn, "nobody")
    with pytest.raises(EventRefusedError, match="not of a custom call"):
        settle(turn, "call2", "custom")


@pytest.mark.parametrize("name", ["edit", "web_search", "unheard_of"])
def test_tools_that_are_not_enabled_are_denied_and_answered_here(name):
    outcome = called(name)
    assert told(outcome) == ["agent.tool_use", "agent.tool_result", "span.model_request_end"]
    assert outcome.events[0]["evaluated_permission"] == "deny"
    assert outcome.turn.model_due


def test_an_ask_call_is_held_until_its_verdict():
    turn = called("write").turn
    with pytest.raises(EventRefusedError, match="tool_confirmation"):
        settle(turn, "call1")
    allowed = rules.confirmation(turn, {"type": "c"}, "call1", allow=True, reason="")
    assert told(allowed) == ["c"]
    assert settle(allowed.turn, "call1").turn.model_due
    denied = rules.confirmation(turn, {"type": "c"}, "call1", allow=False, reason="too risky")
    assert told(denied) == ["c", "agent.tool_result", "session.status_running"]
    assert "too risky" in rules.request(denied.turn, "").results[0].text
    with pytest.raises(EventRefusedError):
        rules.confirmation(denied.turn, {"type": "c"}, "call1", allow=True, reason="")


def test_an_interrupt_settles_what_is_open():
    outcome = rules.interrupt(called("bash", "mine").turn, {"type": "user.interrupt"})
    assert told(outcome) == ["user.interrupt", "agent.tool_result", "session.status_idle"]
    with pytest.raises(UnknownCallError):
        settle(outcome.turn, "call1")
    again = rules.interrupt(outcome.turn, {"type": "user.interrupt"})
    assert told(again) == ["user.interrupt"]


def test_a_waiting_message_opens_the_next_turn():
    turn = called("bash").turn
    waiting = rules.message(turn, {"type": "user.message", "id": "m2"}, "second")
    assert waiting.events[0]["processed_at"] is None
    outcome = rules.interrupt(waiting.turn, {"type": "user.interrupt"})
    assert told(outcome)[-3:] == ["session.status_idle", "user.message", "session.status_running"]
    assert outcome.released == {"m2"}
    assert outcome.turn.message == "second"
    assert outcome.turn.generation > turn.generation


def test_a_failure_ends_the_turn_with_its_reason():
    outcome = rules.fail(opened(), "broken")
    assert told(outcome) == ["session.error", "session.status_idle"]
    assert outcome.events[1]["stop_reason"] == {"type": "retries_exhausted"}


def test_the_model_is_shown_a_bounded_result():
    event, text = {"type": "r"}, "x" * (rules.MAX_RESULT_TEXT + 5)
    outcome = rules.result(called("bash").turn, event, "tool", "call1", ToolResult("", text))
    assert len(rules.request(outcome.turn, "").results[0].text) == rules.MAX_RESULT_TEXT


def test_the_policy_auto_reaches_no_judgement_and_asks():
    auto = {"enabled": True, "permission_policy": {"type": "auto"}}
    tools = [{"type": rules.TOOLSET, "default_config": auto, "configs": []}]
    response = ModelResponse(blocks=(ToolCall("bash", {}),))
    outcome = rules.answer(opened(), response, tools, "span", lambda: "call1")
    use = outcome.events[0]
    assert use["evaluated_permission"] == "ask"
    assert use["evaluation"] == {
        "type": "auto",
        "evaluated_permission": {"type": "ask", "reason_code": "indeterminate"},
    }
    assert outcome.turn.calls[0].held

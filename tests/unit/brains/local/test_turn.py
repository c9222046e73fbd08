"""A turn's rules: what opens it, what settles a call, what ends it, what is told."""

import itertools

import pytest

from handiwork.brains.local import turn as rules
from handiwork.brains.local.models import (
    ModelFailedError,
    ModelResponse,
    Prices,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from handiwork.brains.local.turn import Answer, EventRefusedError, Turn, UnknownCallError

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


def answered(response: ModelResponse, new_id=lambda: "x", turn: Turn | None = None, **more):
    given = Answer(response=response, span="span", tools=TOOLS, **more)
    return rules.answer(turn or opened(), given, lambda number: f"text{number}", new_id)


def called(*names: str):
    ids = (f"call{number}" for number in itertools.count(1))
    response = ModelResponse(blocks=tuple(ToolCall(name, {}) for name in names))
    return answered(response, lambda: next(ids))


def settle(turn: Turn, call_id: str, kind: str = "tool"):
    return rules.result(turn, {"type": "result"}, kind, call_id, ToolResult("", "out"))


def test_a_message_opens_a_turn_and_the_model_is_due():
    turn = opened()
    assert (turn.open, turn.model_due, turn.status) == (True, True, "running")
    assert rules.request(turn, "s").message == "go"


def test_an_answer_without_calls_ends_the_turn():
    usage = Usage(input_tokens=2, output_tokens=3, cache_read_tokens=5, cache_write_tokens=7)
    outcome = answered(ModelResponse(blocks=(Text("hi"),), usage=usage))
    assert told(outcome) == [
        "agent.message",
        "span.model_request_end",
        "session.usage",
        "session.status_idle",
    ]
    assert not outcome.turn.open
    assert outcome.events[0]["id"] == "text0"
    told_usage = outcome.events[2]["usage"]
    assert (told_usage["input_tokens"], told_usage["output_tokens"]) == (2, 3)
    assert told_usage["cache_read_input_tokens"] == 5
    assert told_usage["cache_creation"]["ephemeral_5m_input_tokens"] == 7
    assert told_usage["list_cost"] is None


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
    outcome = rules.fail(opened(), ModelFailedError("broken"))
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
    given = Answer(response=response, span="span", tools=tools)
    outcome = rules.answer(opened(), given, str, lambda: "call1")
    use = outcome.events[0]
    assert use["evaluated_permission"] == "ask"
    assert use["evaluation"] == {
        "type": "auto",
        "evaluated_permission": {"type": "ask", "reason_code": "indeterminate"},
    }
    assert outcome.turn.calls[0].held


def test_a_failure_that_passes_is_told_and_the_turn_stays_open():
    error = ModelFailedError("busy", kind="overloaded", retry=True)
    outcome = rules.reschedule(opened(), error)
    assert told(outcome) == ["session.error", "session.status_rescheduled"]
    assert outcome.events[0]["error"] == {
        "type": "model_overloaded_error",
        "message": "busy",
        "retry_status": {"type": "retrying"},
    }
    assert (outcome.turn.status, outcome.turn.model_due) == ("rescheduling", True)
    again = rules.resume(outcome.turn)
    assert (told(again), again.turn.status) == (["session.status_running"], "running")
    gone = rules.interrupt(outcome.turn, {"type": "user.interrupt"}).turn
    assert gone.status == "idle"


def test_a_refusal_ends_the_turn_and_says_so():
    refused = ModelResponse(blocks=(), stop="refusal", refusal={"category": "cyber"})
    idle = answered(refused).events[-1]
    assert idle["stop_reason"] == {"type": "refusal"}
    assert idle["stop_details"] == {"type": "refusal", "category": "cyber", "explanation": None}


def test_a_call_whose_input_cannot_be_read_is_answered_here():
    outcome = answered(ModelResponse(blocks=(ToolCall("bash", {}, fault="not JSON"),)))
    assert told(outcome) == ["agent.tool_use", "agent.tool_result", "span.model_request_end"]
    assert outcome.events[0]["evaluated_permission"] == "deny"
    assert "not JSON" in outcome.events[1]["content"][0]["text"]
    assert outcome.turn.model_due


@pytest.mark.parametrize(
    "response",
    [
        ModelResponse(blocks=(ToolCall("unheard_of", {}),)),
        ModelResponse(blocks=(Text("hm"),), stop="pause"),
    ],
)
def test_a_model_that_does_nothing_useful_is_not_asked_for_ever(response):
    turn = opened()
    for _ in range(rules.MAX_FRUITLESS - 1):
        turn = answered(response, turn=turn).turn
        assert turn.model_due
    last = answered(response, turn=turn)
    assert not last.turn.open
    assert last.events[-1]["stop_reason"] == {"type": "retries_exhausted"}


def test_a_call_that_can_run_forgives_the_fruitless_ones():
    turn = answered(ModelResponse(blocks=(ToolCall("unheard_of", {}),))).turn
    assert turn.fruitless == 1
    assert answered(ModelResponse(blocks=(ToolCall("bash", {}),)), turn=turn).turn.fruitless == 0


def test_a_paused_turn_waits_for_nothing_but_the_budget():
    outcome = rules.pause(opened())
    assert outcome.events[0]["stop_reason"] == {"type": "budget_reached"}
    turn = outcome.turn
    assert (turn.open, turn.model_due, turn.needs_hands, turn.status) == (
        True,
        False,
        False,
        "idle",
    )
    assert rules.resume(turn).turn.model_due
    assert told(rules.interrupt(turn, {"type": "i"})) == ["i", "session.status_idle"]


def test_costs_add_up_in_whole_cents_rounded_up():
    prices = Prices(input=3, output=15, cache_read=0.3, cache_write=3.75)
    usage = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=10, cache_write_tokens=4)
    assert rules.cost(usage, prices) == 3_000_000 + 1_500_000 + 3_000 + 15_000
    turn = rules.used(rules.used(Turn(), usage, prices), usage, prices)
    assert turn.cost == 2 * 4_518_000
    assert rules.usage_of(turn)["list_cost"] == {"amount": "1", "currency": "USD"}
    assert rules.usage_of(rules.used(Turn(), usage, None))["list_cost"] is None

"""One session's turn: what each event and each answer of the model changes, and what is told. Pure.

A turn opens with a user's message and stays open while the model is asked (`running`) or client
tools are awaited (`idle`, `requires_action`). A call is settled once: by its result, a denial or
an interrupt. Messages that arrive meanwhile wait and open the next turn.

Events are plain dictionaries as they go over the wire, without `processed_at`, which the caller
stamps; one that carries it as None is not processed yet.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from handiwork.brains.local.models import (
    ModelFailedError,
    ModelRequest,
    ModelResponse,
    Prices,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)

Event = dict[str, Any]

CLIENT_TOOLS = ("bash", "read", "write", "edit", "glob", "grep")
"""Tools of the stock toolset that the client runs; web_search and web_fetch are the server's."""
TOOLSET = "agent_toolset_20260401"
MAX_RESULT_TEXT = 100_000
"""Characters of a result that the model is shown."""
MAX_FRUITLESS = 10
"""Answers in a row that neither end the turn nor call a tool that may run."""
MAX_NAME = 128
NANODOLLARS_OF_A_CENT = 10_000_000

ERRORS = {
    "overloaded": "model_overloaded_error",
    "rate_limited": "model_rate_limited_error",
    "request_failed": "model_request_failed_error",
    "billing": "billing_error",
    "context": "compaction_limit_reached_error",
}
"""The protocol's names for how a model fails; other failures are unknown errors."""


class EventRefusedError(Exception):
    """The event does not fit the session's state; the text says why."""


class UnknownCallError(Exception):
    """No call with this id waits for a result; it may have been settled before."""

    def __init__(self, call_id: str) -> None:
        super().__init__(call_id)
        self.call_id = call_id


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call of the model's last response. `held` waits for a confirmation."""

    id: str
    kind: Literal["tool", "custom"]
    name: str
    held: bool = False
    settled: ToolResult | None = None


class Waiting(msgspec.Struct, frozen=True):
    """A message that arrived while a turn was open."""

    event: Event
    text: str


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """Where a session stands. `generation` tells the answer to an older question from the due one.

    `paused`: the turn is open and goes on when the budget is raised. `rescheduled`: the last request
    failed and is made again. `cost` is in nanodollars, None where no price is known.
    """

    open: bool = False
    generation: int = 0
    message: str | None = None
    calls: tuple[Call, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    scratch: dict[str, Any] = {}
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    cost: int | None = None
    fruitless: int = 0
    paused: bool = False
    rescheduled: bool = False

    @property
    def pending(self) -> list[Call]:
        """Calls that are not settled."""
        return [call for call in self.calls if call.settled is None]

    @property
    def model_due(self) -> bool:
        """Whether the model is to be asked now."""
        return self.open and not self.paused and not self.pending

    @property
    def needs_hands(self) -> bool:
        """Whether a work item must be there for it."""
        return self.open and not self.paused

    @property
    def status(self) -> str:
        """The session's status in the protocol's words."""
        if self.rescheduled:
            return "rescheduling"
        return "running" if self.model_due else "idle"


class Outcome(msgspec.Struct, frozen=True):
    """The turn after something happened, what is told, and which told events stood waiting."""

    turn: Turn
    events: list[Event]
    released: frozenset[str] = frozenset()


class Verdict(msgspec.Struct, frozen=True):
    """Whether a tool may run: kind of the call, `allow`, `ask` or `deny`, and the policy's name."""

    kind: Literal["tool", "custom"]
    permission: Literal["allow", "ask", "deny"]
    policy: str | None = None


def verdict(tools: Iterable[Mapping[str, Any]], name: str) -> Verdict:
    """Judge a tool by the agent's `tools`; one that is not there, or disabled, is denied."""
    for tool in tools:
        if tool["type"] == "custom" and tool["name"] == name:
            return Verdict("custom", "allow")
        if tool["type"] == TOOLSET and name in CLIENT_TOOLS:
            return _toolset_verdict(tool, name)
    return Verdict("tool", "deny")


def _toolset_verdict(toolset: Mapping[str, Any], name: str) -> Verdict:
    config = next(
        (each for each in toolset["configs"] if each["name"] == name), toolset["default_config"]
    )
    if not config["enabled"]:
        return Verdict("tool", "deny")
    policy = config["permission_policy"]["type"]
    return Verdict("tool", "allow" if policy == "always_allow" else "ask", policy)


def request(turn: Turn, system: str) -> ModelRequest:
    """Return what the model is asked now, without the conversation."""
    results = tuple(call.settled for call in turn.calls if call.settled is not None)
    return ModelRequest(system=system, message=turn.message, results=results, scratch=turn.scratch)


def message(turn: Turn, event: Event, text: str) -> Outcome:
    """Take a user's message: it opens a turn, or waits for the open one to end."""
    if turn.open:
        waiting = Waiting({**event, "processed_at": None}, text)
        return Outcome(_with(turn, waiting=(*turn.waiting, waiting)), [waiting.event])
    return Outcome(_opened(turn, text), [event, {"type": "session.status_running"}])


def result(turn: Turn, event: Event, kind: str, call_id: str, settled: ToolResult) -> Outcome:
    """Take a tool's result. UnknownCallError when nothing waits for it."""
    call = _pending(turn, call_id)
    if call is None:
        raise UnknownCallError(call_id)
    if call.kind != kind:
        raise EventRefusedError(f"{call_id} is the id of a {call.kind} call, not of a {kind} call")
    if call.held:
        raise EventRefusedError(f"{call_id} waits for a user.tool_confirmation, not for a result")
    after = _settled(turn, call_id, ToolResult(call.name, settled.text, settled.is_error))
    return Outcome(after, [event, *_stand(after)])


def confirmation(turn: Turn, event: Event, call_id: str, *, allow: bool, reason: str) -> Outcome:
    """Take a verdict on a held call."""
    call = _pending(turn, call_id)
    if call is None or not call.held:
        raise EventRefusedError(f"{call_id} is not the id of a tool call that waits for a verdict")
    if allow:
        released = msgspec.structs.replace(call, held=False)
        calls = tuple(released if each.id == call_id else each for each in turn.calls)
        return Outcome(_with(turn, calls=calls), [event])
    text = f"The user refused this call. {reason}".strip()
    after = _settled(turn, call_id, ToolResult(call.name, text, is_error=True))
    return Outcome(after, [event, _told_result(call_id, text), *_stand(after)])


def interrupt(turn: Turn, event: Event) -> Outcome:
    """End the turn now; what was called is settled as interrupted. Nothing open: nothing happens."""
    if not turn.open:
        return Outcome(turn, [event])
    told = [
        _told_result(call.id, "Interrupted by the user.")
        for call in turn.pending
        if call.kind == "tool"
    ]
    return _closed(turn, [event, *told], {"type": "end_turn"})


def ended(turn: Turn) -> Turn:
    """Return the turn of a session that is over: nothing is open, nothing waits."""
    return _with(
        turn,
        open=False,
        generation=turn.generation + 1,
        message=None,
        calls=(),
        waiting=(),
        fruitless=0,
        paused=False,
        rescheduled=False,
    )


def fail(turn: Turn, error: ModelFailedError) -> Outcome:
    """End the turn because the model cannot go on."""
    return _closed(turn, [_told_error(error, "exhausted")], {"type": "retries_exhausted"})


def reschedule(turn: Turn, error: ModelFailedError) -> Outcome:
    """Note that the request failed and will be made again."""
    told = [_told_error(error, "retrying"), {"type": "session.status_rescheduled"}]
    return Outcome(_with(turn, rescheduled=True), told)


def resume(turn: Turn) -> Outcome:
    """Go on after a failure, or with a budget that was raised."""
    after = _with(turn, rescheduled=False, paused=False)
    return Outcome(after, [{"type": "session.status_running"}] if after.model_due else [])


def pause(turn: Turn) -> Outcome:
    """Stop asking the model because the budget is used up; the turn stays open."""
    return Outcome(_with(turn, paused=True), [_idle({"type": "budget_reached"})])


def used(turn: Turn, usage: Usage, prices: Prices | None) -> Turn:
    """Add what a request used."""
    return _with(
        turn,
        input_tokens=turn.input_tokens + usage.input_tokens,
        output_tokens=turn.output_tokens + usage.output_tokens,
        cache_read_tokens=turn.cache_read_tokens + usage.cache_read_tokens,
        cache_write_tokens=turn.cache_write_tokens + usage.cache_write_tokens,
        cost=turn.cost if prices is None else (turn.cost or 0) + cost(usage, prices),
    )


def cost(usage: Usage, prices: Prices) -> int:
    """Return the list price in nanodollars; a dollar a million tokens is 1000 of them a token."""
    dollars = (
        usage.input_tokens * prices.input
        + usage.output_tokens * prices.output
        + usage.cache_read_tokens * prices.cache_read
        + usage.cache_write_tokens * prices.cache_write
    )
    return round(dollars * 1000)


def cents(nanodollars: int) -> int:
    """Return whole cents, rounded up, so that a budget is reached rather early."""
    return -(-nanodollars // NANODOLLARS_OF_A_CENT)


def usage_of(turn: Turn) -> dict[str, Any]:
    """Return the session's usage in the protocol's words."""
    amount = None if turn.cost is None else {"amount": str(cents(turn.cost)), "currency": "USD"}
    return {
        "input_tokens": turn.input_tokens,
        "output_tokens": turn.output_tokens,
        "cache_read_input_tokens": turn.cache_read_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": turn.cache_write_tokens,
            "ephemeral_1h_input_tokens": 0,
        },
        "list_cost": amount,
    }


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of the model with what is needed to tell it."""

    response: ModelResponse
    span: str
    tools: Sequence[Mapping[str, Any]]
    prices: Prices | None = None
    budget: Mapping[str, Any] | None = None


def answer(
    turn: Turn, given: Answer, message_id: Callable[[int], str], new_id: Callable[[], str]
) -> Outcome:
    """Take the model's answer: text is told, tools are called or denied, without one the turn ends.

    `message_id` gives the id of the event that tells the text of a block.
    """
    response = given.response
    events: list[Event] = []
    calls: list[Call] = []
    for number, block in enumerate(response.blocks):
        if isinstance(block, Text):
            content = [{"type": "text", "text": block.text}]
            told = {"type": "agent.message", "id": message_id(number), "content": content}
            events.append(told)
        else:
            call, called = _called(block, given.tools, new_id())
            calls.append(call)
            events += called
    events.append(span_end(given.span, response.usage))
    after = used(turn, response.usage, given.prices)
    after = _with(after, message=None, calls=tuple(calls), scratch=response.scratch)
    if not calls and response.stop != "pause":
        return _closed(after, [*events, _usage(after, given.budget)], *_reason(response))
    return _going_on(after, events)


def _going_on(turn: Turn, events: list[Event]) -> Outcome:
    """Wait for the calls, or ask again at once: a bounded number of times in a row."""
    if turn.pending:
        return Outcome(_with(turn, fruitless=0), [*events, *_awaited(turn)])
    after = _with(turn, fruitless=turn.fruitless + 1)
    if after.fruitless < MAX_FRUITLESS:
        return Outcome(after, events)
    error = ModelFailedError(
        f"the model answered {MAX_FRUITLESS} times in a row with nothing that can be done",
        kind="request_failed",
    )
    failed = fail(after, error)
    return Outcome(failed.turn, [*events, *failed.events], failed.released)


def _reason(response: ModelResponse) -> tuple[dict[str, Any], dict[str, Any] | None]:
    if response.stop != "refusal":
        return {"type": "end_turn"}, None
    details = {"category": None, "explanation": None, **(response.refusal or {})}
    return {"type": "refusal"}, {"type": "refusal", **details}


def span_end(span: str, usage: Usage, *, is_error: bool = False) -> Event:
    """Tell that the model's request which `span` began is over."""
    return {
        "type": "span.model_request_end",
        "model_request_start_id": span,
        "model_usage": {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_creation_input_tokens": usage.cache_write_tokens,
            "cache_read_input_tokens": usage.cache_read_tokens,
        },
        "is_error": is_error,
    }


def _called(
    block: ToolCall, tools: Sequence[Mapping[str, Any]], call_id: str
) -> tuple[Call, list[Event]]:
    name = block.name[:MAX_NAME]
    judged = Verdict("tool", "deny") if block.fault else verdict(tools, name)
    told: Event = {
        "type": f"agent.{'custom_' if judged.kind == 'custom' else ''}tool_use",
        "id": call_id,
        "name": name,
        "input": block.input,
        "session_thread_id": None,
    }
    if judged.kind == "tool":
        told["evaluated_permission"] = judged.permission
        told["evaluation"] = _evaluation(judged)
    call = Call(id=call_id, kind=judged.kind, name=name, held=judged.permission == "ask")
    if judged.permission != "deny":
        return call, [told]
    text = block.fault or f"The tool {name!r} is not enabled for this agent."
    denied = msgspec.structs.replace(call, settled=ToolResult(name, text, is_error=True))
    return denied, [told, _told_result(call_id, text)]


def _evaluation(judged: Verdict) -> dict[str, Any] | None:
    """Tell by which policy a call was judged; `auto` reaches no judgement here and asks."""
    if judged.policy is None:
        return None
    if judged.policy != "auto":
        return {"type": judged.policy}
    return {
        "type": "auto",
        "evaluated_permission": {"type": "ask", "reason_code": "indeterminate"},
    }


def _closed(
    turn: Turn,
    events: list[Event],
    reason: Mapping[str, Any],
    details: Mapping[str, Any] | None = None,
) -> Outcome:
    """End the turn; a message that waited opens the next one at once."""
    idle = _idle(reason, details)
    after = ended(turn)
    if not turn.waiting:
        return Outcome(after, [*events, idle])
    first, *rest = turn.waiting
    event = {key: value for key, value in first.event.items() if key != "processed_at"}
    return Outcome(
        _with(_opened(after, first.text), waiting=tuple(rest)),
        [*events, idle, event, {"type": "session.status_running"}],
        frozenset({event["id"]}),
    )


def _opened(turn: Turn, text: str) -> Turn:
    return _with(turn, open=True, generation=turn.generation + 1, message=text, calls=())


def _pending(turn: Turn, call_id: str) -> Call | None:
    return next((call for call in turn.pending if call.id == call_id), None)


def _settled(turn: Turn, call_id: str, settled: ToolResult) -> Turn:
    shown = ToolResult(settled.name, settled.text[:MAX_RESULT_TEXT], settled.is_error)
    return _with(
        turn,
        calls=tuple(
            msgspec.structs.replace(call, settled=shown, held=False) if call.id == call_id else call
            for call in turn.calls
        ),
    )


def _stand(turn: Turn) -> list[Event]:
    """Tell how the turn stands after a call was settled: going on, or still waiting for the rest."""
    return _awaited(turn) or [{"type": "session.status_running"}]


def _awaited(turn: Turn) -> list[Event]:
    ids = [call.id for call in turn.pending]
    return [_idle({"type": "requires_action", "event_ids": ids})] if ids else []


def _idle(reason: Mapping[str, Any], details: Mapping[str, Any] | None = None) -> Event:
    return {"type": "session.status_idle", "stop_reason": reason, "stop_details": details}


def _told_error(error: ModelFailedError, retry_status: str) -> Event:
    told = {
        "type": ERRORS.get(error.kind, "unknown_error"),
        "message": str(error),
        "retry_status": {"type": retry_status},
    }
    return {"type": "session.error", "error": told}


def _told_result(call_id: str, text: str) -> Event:
    return {
        "type": "agent.tool_result",
        "tool_use_id": call_id,
        "is_error": True,
        "content": [{"type": "text", "text": text}],
        "session_thread_id": None,
    }


def _usage(turn: Turn, budget: Mapping[str, Any] | None) -> Event:
    return {"type": "session.usage", "usage": usage_of(turn), "budget": budget}


def _with(turn: Turn, **changes: Any) -> Turn:
    return msgspec.structs.replace(turn, **changes)

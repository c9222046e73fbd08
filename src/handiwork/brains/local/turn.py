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

from handiwork.brains.local.models import ModelRequest, ModelResponse, Text, ToolCall, ToolResult

Event = dict[str, Any]

CLIENT_TOOLS = ("bash", "read", "write", "edit", "glob", "grep")
"""Tools of the stock toolset that the client runs; web_search and web_fetch are the server's."""
TOOLSET = "agent_toolset_20260401"
MAX_RESULT_TEXT = 100_000
"""Characters of a result that the model is shown."""


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
    """Where a session stands. `generation` tells the answer to an older question from the due one."""

    open: bool = False
    generation: int = 0
    message: str | None = None
    calls: tuple[Call, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    scratch: dict[str, Any] = {}
    input_tokens: int = 0
    output_tokens: int = 0

    @property
    def pending(self) -> list[Call]:
        """Calls that are not settled."""
        return [call for call in self.calls if call.settled is None]

    @property
    def model_due(self) -> bool:
        """Whether the model is to be asked now."""
        return self.open and not self.pending

    @property
    def status(self) -> str:
        """The session's status in the protocol's words."""
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
    """Return what the model is asked now."""
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
        turn, open=False, generation=turn.generation + 1, message=None, calls=(), waiting=()
    )


def fail(turn: Turn, text: str) -> Outcome:
    """End the turn because the model cannot go on."""
    error = {"type": "unknown_error", "message": text, "retry_status": {"type": "exhausted"}}
    told = {"type": "session.error", "error": error}
    return _closed(turn, [told], {"type": "retries_exhausted"})


def answer(
    turn: Turn,
    response: ModelResponse,
    tools: Sequence[Mapping[str, Any]],
    span: str,
    new_id: Callable[[], str],
) -> Outcome:
    """Take the model's answer: text is told, tools are called or denied, without one the turn ends."""
    events: list[Event] = []
    calls: list[Call] = []
    for block in response.blocks:
        if isinstance(block, Text):
            content = [{"type": "text", "text": block.text}]
            events.append({"type": "agent.message", "content": content})
        else:
            call, told = _called(block, tools, new_id())
            calls.append(call)
            events += told
    events.append(span_end(span, response.input_tokens, response.output_tokens))
    after = _with(
        turn,
        message=None,
        calls=tuple(calls),
        scratch=response.scratch,
        input_tokens=turn.input_tokens + response.input_tokens,
        output_tokens=turn.output_tokens + response.output_tokens,
    )
    if not calls:
        return _closed(after, [*events, _usage(after)], {"type": "end_turn"})
    return Outcome(after, [*events, *_awaited(after)])


def span_end(span: str, input_tokens: int, output_tokens: int, *, is_error: bool = False) -> Event:
    """Tell that the model's request which `span` began is over."""
    usage = {
        "input_tokens": input_tokens,
        "output_tokens": output_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
    }
    return {
        "type": "span.model_request_end",
        "model_request_start_id": span,
        "model_usage": usage,
        "is_error": is_error,
    }


def _called(
    block: ToolCall, tools: Sequence[Mapping[str, Any]], call_id: str
) -> tuple[Call, list[Event]]:
    judged = verdict(tools, block.name)
    told: Event = {
        "type": f"agent.{'custom_' if judged.kind == 'custom' else ''}tool_use",
        "id": call_id,
        "name": block.name,
        "input": block.input,
        "session_thread_id": None,
    }
    if judged.kind == "tool":
        told["evaluated_permission"] = judged.permission
        told["evaluation"] = _evaluation(judged)
    call = Call(id=call_id, kind=judged.kind, name=block.name, held=judged.permission == "ask")
    if judged.permission != "deny":
        return call, [told]
    text = f"The tool {block.name!r} is not enabled for this agent."
    denied = msgspec.structs.replace(call, settled=ToolResult(block.name, text, is_error=True))
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


def _closed(turn: Turn, events: list[Event], reason: Mapping[str, Any]) -> Outcome:
    """End the turn; a message that waited opens the next one at once."""
    idle = {"type": "session.status_idle", "stop_reason": reason, "stop_details": None}
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
    if not ids:
        return []
    reason = {"type": "requires_action", "event_ids": ids}
    return [{"type": "session.status_idle", "stop_reason": reason, "stop_details": None}]


def _told_result(call_id: str, text: str) -> Event:
    return {
        "type": "agent.tool_result",
        "tool_use_id": call_id,
        "is_error": True,
        "content": [{"type": "text", "text": text}],
        "session_thread_id": None,
    }


def _usage(turn: Turn) -> Event:
    usage = {"input_tokens": turn.input_tokens, "output_tokens": turn.output_tokens}
    return {"type": "session.usage", "usage": usage, "budget": None}


def _with(turn: Turn, **changes: Any) -> Turn:
    return msgspec.structs.replace(turn, **changes)

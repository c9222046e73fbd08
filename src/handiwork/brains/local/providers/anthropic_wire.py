"""The Messages API: a request to its JSON, its stream's events to an answer. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from handiwork.brains.local.models import (
    Media,
    Message,
    ModelRequest,
    ModelResponse,
    Stop,
    Text,
    ToolCall,
    ToolResult,
    Usage,
)
from handiwork.brains.local.providers.pieces import (
    MalformedError,
    OpenCall,
    OpenText,
    Pieces,
    count_of,
    text_of,
)

Json = dict[str, Any]

_CACHED: Json = {"cache_control": {"type": "ephemeral"}}
_STOPS: dict[str, Stop] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "pause",
    "refusal": "refusal",
}
"""Other reasons end the answer: `end_turn`, `tool_use`, `stop_sequence`, what is yet to come."""


def body(request: ModelRequest, model: str, max_tokens: int) -> Json:
    """Return the body of POST /v1/messages.

    The system prompt, the tools and the last message are marked for the prompt cache, so that the
    next request of the session reads all before it from there.
    """
    messages = [_message(message) for message in request.history]
    if messages:
        messages[-1]["content"][-1] |= _CACHED
    asked: Json = {"model": model, "max_tokens": max_tokens, "messages": messages, "stream": True}
    if request.system:
        asked["system"] = [{"type": "text", "text": request.system, **_CACHED}]
    if request.tools:
        asked["tools"] = [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": {"type": "object", **tool.input_schema},
            }
            for tool in request.tools
        ]
        asked["tools"][-1] |= _CACHED
    return asked


def _message(message: Message) -> Json:
    return {"role": message.role, "content": [_block(block) for block in message.blocks]}


def _block(block: Text | Media | ToolCall | ToolResult) -> Json:
    match block:
        case Text(text=text):
            return {"type": "text", "text": text}
        case Media(kind=kind, source=source, title=title):
            more = {"title": title} if title and kind == "document" else {}
            return {"type": kind, "source": dict(source), **more}
        case ToolCall(id=call_id, name=name, input=given):
            return {"type": "tool_use", "id": call_id, "name": name, "input": given}
        case ToolResult(id=call_id, content=content, text=text, is_error=is_error):
            return {
                "type": "tool_result",
                "tool_use_id": call_id,
                "content": [_block(part) for part in content or (Text(text),)],
                "is_error": is_error,
            }


class Answer:
    """An answer put together from the stream's events."""

    def __init__(self, tell: Callable[[int, str], None]) -> None:
        self._pieces = Pieces(tell)
        self._open: dict[int, OpenText | OpenCall | None] = {}
        self._usage: dict[str, int] = {}
        self._reason = ""
        self._details: Json | None = None
        self._ended = False

    def take(self, event: object) -> None:
        """Take the next event. MalformedError, ExcessiveError."""
        if not isinstance(event, Mapping):
            raise MalformedError("an event is not an object")
        match event.get("type"):
            case "message_start":
                self._count(_mapping(event.get("message")).get("usage"))
            case "content_block_start":
                self._start(_index(event), _mapping(event.get("content_block")))
            case "content_block_delta":
                self._add(_index(event), _mapping(event.get("delta")))
            case "message_delta":
                self._count(event.get("usage"))
                self._stop(_mapping(event.get("delta")))
            case "message_stop":
                self._ended = True

    def done(self) -> ModelResponse:
        """Return the answer. MalformedError when the stream ended before it did."""
        if not self._ended:
            raise MalformedError("the answer was cut before its end")
        stop = _STOPS.get(self._reason, "end")
        usage = Usage(
            input_tokens=self._usage.get("input_tokens", 0),
            output_tokens=self._usage.get("output_tokens", 0),
            cache_read_tokens=self._usage.get("cache_read_input_tokens", 0),
            cache_write_tokens=self._usage.get("cache_creation_input_tokens", 0),
        )
        # What a refused answer called is not to be done.
        blocks = tuple(
            block
            for block in self._pieces.blocks()
            if stop != "refusal" or not isinstance(block, ToolCall)
        )
        return ModelResponse(blocks=blocks, usage=usage, stop=stop, refusal=self._details)

    def _start(self, index: int, block: Mapping[str, Any]) -> None:
        if index in self._open:
            raise MalformedError(f"block {index} begins twice")
        if len(self._open) > 10_000:
            raise MalformedError("the answer has too many blocks")
        self._open[index] = None
        if block.get("type") == "text":
            text = self._open[index] = OpenText()
            self._pieces.say(text, text_of(block.get("text")))
        elif block.get("type") == "tool_use":
            call = self._open[index] = self._pieces.open_call(text_of(block.get("name")))
            given = block.get("input")
            call.whole = given if isinstance(given, dict) and given else None

    def _add(self, index: int, delta: Mapping[str, Any]) -> None:
        if index not in self._open:
            raise MalformedError(f"block {index} goes on without having begun")
        block = self._open[index]
        if isinstance(block, OpenText) and delta.get("type") == "text_delta":
            self._pieces.say(block, text_of(delta.get("text")))
        elif isinstance(block, OpenCall) and delta.get("type") == "input_json_delta":
            block.whole = None
            self._pieces.add_input(block, text_of(delta.get("partial_json")))

    def _count(self, usage: object) -> None:
        """Take the counts over; those of the end are totals and replace those of the beginning."""
        for name, count in _mapping(usage).items():
            if isinstance(name, str) and count_of(count):
                self._usage[name] = count_of(count)

    def _stop(self, delta: Mapping[str, Any]) -> None:
        self._reason = text_of(delta.get("stop_reason")) or self._reason
        details = delta.get("stop_details")
        if isinstance(details, Mapping):
            self._details = {
                name: text_of(details.get(name))[:2000] or None
                for name in ("category", "explanation")
            }


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _index(event: Mapping[str, Any]) -> int:
    index = event.get("index")
    if not isinstance(index, int):
        raise MalformedError("a block has no index")
    return index

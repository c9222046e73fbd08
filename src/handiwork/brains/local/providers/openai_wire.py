"""Chat completions: a request to its JSON, its stream's chunks to an answer. Pure.

Endpoints that call themselves compatible differ in what they leave out; an answer is read for what
it says, and a tool call is told from the next by its index, its id or its name, whichever is there.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from handiwork.brains.local.models import (
    Media,
    Message,
    ModelRequest,
    ModelResponse,
    Stop,
    Text,
    ToolCall,
    ToolOffer,
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

_LOOKAROUND = re.compile(r"\(\?<?[=!]")
_STOPS: dict[str, Stop] = {
    "length": "length",
    "max_tokens": "length",
    "content_filter": "refusal",
    "refusal": "refusal",
}


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What an endpoint takes, as far as its refusals have told."""

    images: bool = True
    usage_option: bool = True
    completion_tokens: bool = False


def body(request: ModelRequest, model: str, max_tokens: int, dialect: Dialect) -> Json:
    """Return the body of POST /chat/completions."""
    messages: list[Json] = []
    if request.system:
        messages.append({"role": "system", "content": request.system})
    for message in request.history:
        messages += (
            [_assistant(message)] if message.role == "assistant" else _user(message, dialect)
        )
    limit = "max_completion_tokens" if dialect.completion_tokens else "max_tokens"
    asked: Json = {"model": model, "messages": messages, "stream": True, limit: max_tokens}
    if dialect.usage_option:
        asked["stream_options"] = {"include_usage": True}
    if request.tools:
        asked["tools"] = [_tool(tool) for tool in request.tools]
    return asked


def has_images(request: ModelRequest) -> bool:
    """Say whether the conversation shows an image."""
    blocks = [block for message in request.history for block in message.blocks]
    parts = [part for b in blocks if isinstance(b, ToolResult) for part in b.content]
    return any(isinstance(each, Media) and each.kind == "image" for each in [*blocks, *parts])


def without_images(request: ModelRequest) -> ModelRequest:
    """Return the request with a note in the place of each image."""
    history = tuple(
        Message(each.role, tuple(_imageless(block) for block in each.blocks))
        for each in request.history
    )
    return msgspec.structs.replace(request, history=history)


def _imageless(block: Any) -> Any:
    if isinstance(block, Media) and block.kind == "image":
        return Text("[image: the model does not take it]")
    if isinstance(block, ToolResult):
        content = tuple(_imageless(each) for each in block.content)
        return msgspec.structs.replace(block, content=content)
    return block


def _tool(tool: ToolOffer) -> Json:
    schema = _plain_patterns({"type": "object", **tool.input_schema})
    function = {"name": tool.name, "description": tool.description, "parameters": schema}
    return {"type": "function", "function": function}


def _plain_patterns(schema: Any) -> Any:
    """Leave out patterns with lookaround, which endpoints that compile schemas refuse."""
    if isinstance(schema, list):
        return [_plain_patterns(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: _plain_patterns(value)
        for key, value in schema.items()
        if not (key == "pattern" and isinstance(value, str) and _LOOKAROUND.search(value))
    }


def _assistant(message: Message) -> Json:
    texts = [block.text for block in message.blocks if isinstance(block, Text)]
    said: Json = {"role": "assistant", "content": "\n\n".join(texts) or None}
    calls = [block for block in message.blocks if isinstance(block, ToolCall)]
    if calls:
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.input)},
            }
            for call in calls
        ]
    return said


def _user(message: Message, dialect: Dialect) -> list[Json]:
    """Return the results, which hold text only, then all else in one message of the user."""
    results = [block for block in message.blocks if isinstance(block, ToolResult)]
    shown: list[Text | Media] = []
    messages: list[Json] = []
    for result in results:
        media = [part for part in result.content if isinstance(part, Media)]
        text = "\n".join(p.text for p in result.content if isinstance(p, Text)) or result.text
        if media:
            text = f"{text}\n[{len(media)} attached: shown in the next message]".strip()
            shown += media
        text = f"Error: {text}" if result.is_error else text
        messages.append({"role": "tool", "tool_call_id": result.id, "content": text})
    shown += [block for block in message.blocks if isinstance(block, Text | Media)]
    if not shown:
        return messages
    parts = [_part(block, dialect) for block in shown]
    plain = all(part["type"] == "text" for part in parts)
    content: Any = "\n\n".join(part["text"] for part in parts) if plain else parts
    return [*messages, {"role": "user", "content": content}]


def _part(block: Text | Media, dialect: Dialect) -> Json:
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    if block.kind != "image" or not dialect.images:
        return {"type": "text", "text": f"[{block.kind}: this model is not shown it]"}
    source = block.source
    url = source.get("url")
    if source.get("type") == "base64":
        url = f"data:{source.get('media_type', 'image/png')};base64,{source.get('data', '')}"
    return {"type": "image_url", "image_url": {"url": url}}


class Answer:
    """An answer put together from the stream's chunks."""

    def __init__(self, tell: Callable[[int, str], None]) -> None:
        self._pieces = Pieces(tell)
        self._text: OpenText | None = None
        self._calls: dict[int | str, OpenCall] = {}
        self._ids: dict[int | str, str] = {}
        self._last: int | str | None = None
        self._usage = Usage()
        self._reason: str | None = None
        self._heard = False

    def take(self, chunk: object) -> None:
        """Take the next chunk, or a whole answer. MalformedError, ExcessiveError."""
        if not isinstance(chunk, Mapping):
            raise MalformedError("a chunk is not an object")
        if isinstance(chunk.get("usage"), Mapping):
            self._usage = _usage(chunk["usage"])
        choices = chunk.get("choices")
        if choices is None:
            return
        if not isinstance(choices, list):
            raise MalformedError("choices is not a list")
        for choice in choices:
            if isinstance(choice, Mapping) and choice.get("index", 0) in (0, None):
                self._choice(choice)

    def done(self) -> ModelResponse:
        """Return the answer. MalformedError when the stream ended before it did."""
        if not self._reason:
            raise MalformedError(
                "the answer was cut before its end" if self._heard else "the answer is empty"
            )
        stop = _STOPS.get(self._reason, "end")
        blocks = tuple(
            block
            for block in self._pieces.blocks()
            if stop != "refusal" or not isinstance(block, ToolCall)
        )
        return ModelResponse(blocks=blocks, usage=self._usage, stop=stop)

    def _choice(self, choice: Mapping[str, Any]) -> None:
        self._heard = True
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, Mapping):
            said = _content(delta.get("content")) or text_of(delta.get("refusal"))
            if said:
                self._say(said)
            calls = delta.get("tool_calls")
            for call in calls if isinstance(calls, list) else ():
                if isinstance(call, Mapping):
                    self._call(call)
        self._reason = text_of(choice.get("finish_reason")) or self._reason

    def _say(self, text: str) -> None:
        if self._text is None:
            self._text = OpenText()
        self._pieces.say(self._text, text)

    def _call(self, piece: Mapping[str, Any]) -> None:
        given = piece.get("function")
        function: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        name, call_id = text_of(function.get("name")), text_of(piece.get("id"))
        place = self._place(piece.get("index"), call_id, name)
        call = self._calls.get(place)
        if call is None:
            call = self._calls[place] = self._pieces.open_call(name)
            self._text = None
        elif name and not call.name:
            call.name = name
        self._ids[place] = self._ids.get(place) or call_id
        self._last = place
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            call.whole = arguments
        else:
            self._pieces.add_input(call, text_of(arguments))

    def _place(self, index: object, call_id: str, name: str) -> int | str:
        """Return which call a piece belongs to: a new one's place, or that of one begun."""
        known = next((p for p, each in self._ids.items() if call_id and each == call_id), None)
        if known is not None:
            return known
        if isinstance(index, int) and not isinstance(index, bool):
            taken = self._ids.get(index, "")
            if not (taken and call_id) or taken == call_id:
                return index
        elif self._last is not None and not (name and (call_id or self._begun(self._last))):
            return self._last
        return f"call {len(self._calls)}"

    def _begun(self, place: int | str) -> bool:
        """Say whether a call has its name, so that another name is another call."""
        return bool(self._calls[place].name)


def _content(content: object) -> str:
    """Return a text, or the texts of a list of parts."""
    if isinstance(content, list):
        parts = [each for each in content if isinstance(each, Mapping)]
        return "".join(text_of(part.get("text")) for part in parts)
    return text_of(content)


def _usage(usage: Mapping[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details")
    cached = count_of(details.get("cached_tokens")) if isinstance(details, Mapping) else 0
    prompt = count_of(usage.get("prompt_tokens"))
    return Usage(
        input_tokens=max(0, prompt - cached),
        output_tokens=count_of(usage.get("completion_tokens")),
        cache_read_tokens=min(cached, prompt),
    )

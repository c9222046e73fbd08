"""A session's events as the conversation that a model is shown. Pure.

The events are the only memory: after a restart the same conversation comes of them. A unit is a
user's message, or one response of the model with the results of its calls, which are never parted.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec

from handiwork.brains.local.models import Media, Message, Text, ToolCall, ToolResult

COMPACTED = "agent.thread_context_compacted"
TYPES = (
    "user.message",
    "user.tool_result",
    "user.custom_tool_result",
    "agent.message",
    "agent.tool_use",
    "agent.custom_tool_use",
    "agent.tool_result",
    "span.model_request_end",
)
"""Events that a conversation is made of; a compaction says where it begins."""

CHARACTERS_OF_A_TOKEN = 3
"""Fewer than of most texts, so that an estimate is rather too high."""
IMAGE_TOKENS = 1600
BYTES_OF_A_DOCUMENT_TOKEN = 20
NOTHING = "(no output)"
BEGINNING = "[The beginning of the conversation is left out.]"
UNANSWERED = "Interrupted by the user."

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")

Block = Text | Media | ToolCall | ToolResult


class Unit(msgspec.Struct, frozen=True):
    """A part of the conversation that is kept or dropped whole. `position`: of its first event."""

    position: int
    messages: tuple[Message, ...]


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation since it was last shortened.

    `tokens` is what its provider counted at the last response, with estimates of what came since.
    """

    summary: str | None
    units: tuple[Unit, ...]
    tokens: int

    def messages(self) -> tuple[Message, ...]:
        """Return it as messages whose roles alternate, beginning with the user's."""
        blocks: list[Message] = []
        if self.summary is not None:
            blocks.append(Message("user", (Text(self.summary),)))
        blocks += [message for unit in self.units for message in unit.messages]
        if blocks and blocks[0].role != "user":
            blocks.insert(0, Message("user", (Text(BEGINNING),)))
        return _alternating(blocks)


def transcript(
    events: Iterable[tuple[int, Mapping[str, Any]]], marker: tuple[int, str] | None, fixed: int
) -> Transcript:
    """Return the conversation of the events, which come with their positions, in order.

    `marker`: position and summary of the last compaction. `fixed`: tokens of the system prompt and
    the tools, counted where the provider did not count.
    """
    builder = _Builder()
    after, summary = marker if marker else (-1, None)
    tokens = fixed + tokens_of_text(summary or "")
    for position, event in events:
        kind = event["type"]
        if event.get("processed_at") is None:
            continue
        if kind == "span.model_request_end":
            builder.respond()
            counted = 0 if event.get("is_error") else _counted(event["model_usage"])
            tokens = counted if counted and position > after else tokens
        else:
            tokens += builder.take(position, kind, event)
    return Transcript(summary=summary, units=builder.units(), tokens=tokens)


class _Builder:
    """Gathers responses and their results, which come in any order."""

    def __init__(self) -> None:
        self._units: list[Unit] = []
        self._position = 0
        self._blocks: list[Text | ToolCall] = []
        self._results: dict[str, ToolResult] = {}
        self._responded = False

    def take(self, position: int, kind: str, event: Mapping[str, Any]) -> int:
        """Add an event; returns its tokens."""
        block = _block(kind, event)
        if isinstance(block, ToolResult):
            self._results[block.id] = block
            return estimate(block)
        if isinstance(block, Text | ToolCall):
            self._say(position, block)
            return estimate(block)
        self._close()
        content = contents(event["content"]) or (Text("(empty)"),)
        self._units.append(Unit(position, (Message("user", content),)))
        return sum(estimate(each) for each in content)

    def respond(self) -> None:
        """Note that the response is complete; results of its calls may follow."""
        self._responded = True

    def units(self) -> tuple[Unit, ...]:
        """Return everything that was added."""
        self._close()
        return tuple(self._units)

    def _say(self, position: int, block: Text | ToolCall) -> None:
        if self._responded:
            self._close()
        if not self._blocks:
            self._position = position
        self._blocks.append(block)

    def _close(self) -> None:
        self._responded = False
        spoken = [b for b in self._blocks if not (isinstance(b, Text) and not b.text.strip())]
        calls = [block for block in spoken if isinstance(block, ToolCall)]
        results = [
            self._results.get(call.id) or ToolResult(call.name, UNANSWERED, True, call.id)
            for call in calls
        ]
        if spoken:
            messages = [Message("assistant", tuple(spoken))]
            messages += [Message("user", tuple(results))] if results else []
            self._units.append(Unit(self._position, tuple(messages)))
        self._blocks, self._results = [], {}


def _block(kind: str, event: Mapping[str, Any]) -> Text | ToolCall | ToolResult | None:
    match kind:
        case "agent.message":
            return Text("".join(part.get("text", "") for part in event["content"]))
        case "agent.tool_use" | "agent.custom_tool_use":
            return ToolCall(_name(event["name"]), event["input"], event["id"])
        case "user.tool_result" | "agent.tool_result":
            return _result(event, event["tool_use_id"])
        case "user.custom_tool_result":
            return _result(event, event["custom_tool_use_id"])
    return None


def _name(name: str) -> str:
    """Return a name that every provider takes back: models make up ones that they then refuse."""
    return _NOT_IN_NAMES.sub("_", name) or "unnamed"


def _result(event: Mapping[str, Any], call_id: str) -> ToolResult:
    content = contents(event["content"]) or (Text(NOTHING),)
    text = "\n".join(block.text for block in content if isinstance(block, Text))
    return ToolResult("", text, bool(event.get("is_error")), call_id, content)


def contents(blocks: Iterable[Mapping[str, Any]]) -> tuple[Text | Media, ...]:
    """Return content blocks of the protocol; a search result becomes text."""
    found: list[Text | Media] = []
    for block in blocks:
        kind: Any = block["type"]
        if kind in ("image", "document"):
            found.append(_media(kind, block))
        else:
            text = block["text"] if kind == "text" else json.dumps(block)
            found += [Text(text)] if text.strip() else []
    return tuple(found)


def _media(kind: Literal["image", "document"], block: Mapping[str, Any]) -> Text | Media:
    source = block["source"]
    if source.get("type") == "text" and isinstance(source.get("data"), str):
        return Text(source["data"] or NOTHING)
    if source.get("type") in ("base64", "url"):
        return Media(kind, source, block.get("title") or "")
    return Text(f"[{kind}: not shown]")


def tokens_of_text(text: str) -> int:
    """Return about how many tokens a text has, rather too many."""
    return -(-len(text) // CHARACTERS_OF_A_TOKEN)


def estimate(block: Block) -> int:
    """Return about how many tokens a block has, rather too many."""
    match block:
        case Text(text=text):
            return tokens_of_text(text)
        case ToolCall(name=name, input=given):
            return tokens_of_text(name) + tokens_of_text(json.dumps(given)) + 10
        case Media(kind="document", source=source):
            return IMAGE_TOKENS + len(str(source.get("data", ""))) // BYTES_OF_A_DOCUMENT_TOKEN
        case ToolResult(content=content, text=text):
            parts = content or (Text(text),)
            return 10 + sum(estimate(each) for each in parts)
    return IMAGE_TOKENS


def weight(units: Iterable[Unit]) -> int:
    """Return about how many tokens units have."""
    return sum(
        estimate(block) for unit in units for message in unit.messages for block in message.blocks
    )


def _counted(usage: Mapping[str, Any]) -> int:
    return sum(count for count in usage.values() if isinstance(count, int))


def _alternating(messages: Iterable[Message]) -> tuple[Message, ...]:
    """Join neighbours of one role."""
    joined: list[Message] = []
    for message in messages:
        if joined and joined[-1].role == message.role:
            joined[-1] = Message(message.role, (*joined[-1].blocks, *message.blocks))
        else:
            joined.append(message)
    return tuple(joined)

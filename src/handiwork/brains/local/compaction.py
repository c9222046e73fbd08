"""Keeping a conversation within a model's window: when it is shortened, and what is left. Pure."""

import json
from typing import Any

import msgspec

from handiwork.brains.local.models import (
    Media,
    Message,
    ModelRequest,
    Profile,
    Text,
    ToolCall,
    ToolOffer,
    ToolResult,
)
from handiwork.brains.local.transcript import (
    CHARACTERS_OF_A_TOKEN,
    Block,
    Transcript,
    Unit,
    tokens_of_text,
    weight,
)

FULL_SHARE = 0.85
"""Of the room for input: a conversation that fills so much is shortened."""
KEPT_SHARE = 0.25
"""Of the room for input: what is kept as it was."""
SUMMARY_SHARE = 0.8
"""Of the room for input: what a summary is made of."""
LONGEST_BLOCKS = (20_000, 4_000, 800, 200)
"""Characters of a block, tried in turn where a conversation does not fit."""
MAX_SUMMARY = 40_000

ASKED = (
    "Below is the record of work between a user and you, an agent with tools. It is about to be"
    " removed, and you will go on with your summary of it alone. Write that summary: what the user"
    " wants, in their words where they matter; what was done and found, with exact names, paths,"
    " commands, values and errors; what is decided; what is still to be done. Leave out what no"
    " longer matters. Answer with the summary only."
)
HEAD = "[The conversation before this was shortened. Summary of it:]\n\n"
LOST = (
    "[The conversation before this was dropped, for it was too long and no summary could be made.]"
)


def room(profile: Profile) -> int:
    """Return how many tokens a request may have."""
    return profile.context_tokens - profile.max_output_tokens


def fixed_tokens(system: str, tools: tuple[ToolOffer, ...]) -> int:
    """Return about how many tokens come with every request."""
    said = sum(len(each.name) + len(each.description) for each in tools)
    schemas = sum(len(json.dumps(each.input_schema)) for each in tools)
    return tokens_of_text(system) + (said + schemas) // CHARACTERS_OF_A_TOKEN


def is_full(transcript: Transcript, profile: Profile) -> bool:
    """Say whether the conversation is to be shortened before the next request."""
    return transcript.tokens > FULL_SHARE * room(profile)


def split(transcript: Transcript, profile: Profile) -> tuple[tuple[Unit, ...], tuple[Unit, ...]]:
    """Return the units to be summed up and those that are kept: at least the last."""
    units = transcript.units
    most = KEPT_SHARE * room(profile)
    first = max(0, len(units) - 1)
    while first > 0 and weight(units[first - 1 :]) <= most:
        first -= 1
    return units[:first], units[first:]


def summary_request(
    transcript: Transcript, older: tuple[Unit, ...], profile: Profile
) -> ModelRequest:
    """Return the request for a summary of what went before and the older units."""
    parts = [transcript.summary] if transcript.summary else []
    parts += [_rendered(message) for unit in older for message in unit.messages]
    most = int(SUMMARY_SHARE * room(profile)) * CHARACTERS_OF_A_TOKEN
    record = cut("\n\n".join(parts), most)
    asked = Message("user", (Text(f"{ASKED}\n\n<record>\n{record}\n</record>"),))
    return ModelRequest(system="", history=(asked,))


def summary_of(text: str, older: tuple[Unit, ...]) -> str:
    """Return what stands for the older units: the summary, or what can be told without one."""
    if text.strip():
        return HEAD + cut(text.strip(), MAX_SUMMARY)
    first = next((_rendered(u.messages[0]) for u in older if u.messages[0].role == "user"), "")
    return f"{LOST}\n\n{cut(first, LONGEST_BLOCKS[1])}".strip()


def fitted(transcript: Transcript, tokens: int) -> Transcript:
    """Return the transcript shortened by force to about so many tokens.

    Long blocks are cut and media left out first; then the oldest units go, the last one stays.
    """
    summary, units = transcript.summary, transcript.units
    for longest in LONGEST_BLOCKS:
        units = tuple(_shortened(unit, longest) for unit in units)
        summary = cut(summary, longest) if summary is not None else None
        if weight(units) + tokens_of_text(summary or "") <= tokens:
            break
    while len(units) > 1 and weight(units) + tokens_of_text(summary or "") > tokens:
        units = units[1:]
    return msgspec.structs.replace(transcript, summary=summary, units=units)


def cut(text: str, longest: int) -> str:
    """Return the text, or its head and tail around a note of how much is left out."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half} characters left out …]\n{text[-half:]}"


def _shortened(unit: Unit, longest: int) -> Unit:
    return Unit(
        unit.position,
        tuple(
            Message(message.role, tuple(_short(block, longest) for block in message.blocks))
            for message in unit.messages
        ),
    )


def _short(block: Block, longest: int) -> Block:
    match block:
        case Text(text=text):
            return Text(cut(text, longest))
        case Media(kind=kind):
            return Text(f"[{kind}: left out]")
        case ToolCall(input=given):
            return msgspec.structs.replace(block, input=_short_input(given, longest))
        case ToolResult(text=text):
            short = cut(text, longest)
            return msgspec.structs.replace(
                block, text=short, content=(Text(short or "[left out]"),)
            )


def _short_input(given: dict[str, Any], longest: int) -> dict[str, Any]:
    if len(json.dumps(given)) <= longest:
        return given
    return {
        key: cut(value, longest) if isinstance(value, str) else value
        for key, value in given.items()
        if isinstance(value, str) or len(json.dumps(value)) <= longest
    }


def _rendered(message: Message) -> str:
    return "\n".join(_said(message.role, block) for block in message.blocks)


def _said(role: str, block: Block) -> str:
    match block:
        case Text(text=text):
            return f"{role}: {text}"
        case ToolCall(name=name, input=given):
            return f"called {name}: {cut(json.dumps(given), LONGEST_BLOCKS[1])}"
        case ToolResult(text=text, is_error=is_error):
            return f"{'failed' if is_error else 'result'}: {cut(text, LONGEST_BLOCKS[1])}"
    return f"{role}: [{block.kind}]"

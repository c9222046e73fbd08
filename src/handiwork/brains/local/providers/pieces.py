"""An answer put together from the pieces of a stream, within limits. Pure."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

from handiwork.brains.local.models import Text, ToolCall

MAX_TEXT = 2_000_000
"""Characters of all texts of an answer."""
MAX_ARGUMENTS = 2_000_000
"""Characters of all inputs of an answer's tool calls."""
MAX_BLOCKS = 256
MAX_CALLS = 64
MAX_DEPTH = 100
"""Of a tool call's input."""


_SURROGATES = re.compile("[\ud800-\udfff]")


class MalformedError(Exception):
    """The stream is no answer; the text says what is wrong."""


class ExcessiveError(Exception):
    """The answer is larger than any answer should be; the text says in what."""


class OpenText:
    """A text that grows; it is a block of the answer once something is said."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.number: int | None = None

    def done(self) -> Text:
        """Return it."""
        return Text("".join(self.parts))


class OpenCall:
    """A tool call whose input comes in pieces of JSON, or whole."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parts: list[str] = []
        self.whole: dict[str, Any] | None = None

    def done(self) -> ToolCall:
        """Return it; one whose input cannot be read carries the fault."""
        try:
            given = _decoded("".join(self.parts)) if self.whole is None else self.whole
            # What cannot be written again (a lone surrogate, a boundless number) is not kept.
            msgspec.json.encode(given)
        except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError) as error:
            said = str(error)[:200].encode("ascii", "replace").decode()
            fault = f"The input of this call is not valid JSON ({said}). Make the call again."
            return ToolCall(self.name, {}, fault=fault)
        if isinstance(given, dict) and fits(given):
            return ToolCall(self.name, given)
        fault = "The input of this call must be a JSON object, not nested too deep. Make it again."
        return ToolCall(self.name, {}, fault=fault)


def _decoded(text: str) -> object:
    return msgspec.json.decode(text.encode()) if text.strip() else {}


class Pieces:
    """The blocks of one answer in their order; text is told as it comes."""

    def __init__(self, tell: Callable[[int, str], None]) -> None:
        self._tell = tell
        self._blocks: list[OpenText | OpenCall] = []
        self._characters = 0
        self._arguments = 0
        self._calls = 0

    def open_call(self, name: str) -> OpenCall:
        """Begin a tool call."""
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise ExcessiveError(f"more than {MAX_CALLS} tool calls")
        block = OpenCall(name)
        self._add(block)
        return block

    def say(self, block: OpenText, text: str) -> None:
        """Add to a text and tell it."""
        if not text:
            return
        self._characters += len(text)
        if self._characters > MAX_TEXT:
            raise ExcessiveError(f"more than {MAX_TEXT} characters of text")
        if block.number is None:
            block.number = len(self._blocks)
            self._add(block)
        text = _well_formed(text)
        block.parts.append(text)
        self._tell(block.number, text)

    def add_input(self, call: OpenCall, piece: str) -> None:
        """Add to the input of a call."""
        self._arguments += len(piece)
        if self._arguments > MAX_ARGUMENTS:
            raise ExcessiveError(f"more than {MAX_ARGUMENTS} characters of tool input")
        call.parts.append(_well_formed(piece))

    def blocks(self) -> tuple[Text | ToolCall, ...]:
        """Return the answer."""
        return tuple(block.done() for block in self._blocks)

    def _add(self, block: OpenText | OpenCall) -> None:
        if len(self._blocks) >= MAX_BLOCKS:
            raise ExcessiveError(f"more than {MAX_BLOCKS} blocks")
        self._blocks.append(block)


def fits(value: object, depth: int = 0) -> bool:
    """Say whether JSON is nested no deeper than the limit."""
    if depth > MAX_DEPTH:
        return False
    inner: Any = value.values() if isinstance(value, dict) else value
    if not isinstance(inner, list) and not isinstance(value, dict):
        return True
    return all(fits(each, depth + 1) for each in inner)


def text_of(value: object) -> str:
    """Return a string as it is and anything else as nothing."""
    return value if isinstance(value, str) else ""


def count_of(value: object) -> int:
    """Return a count of tokens as it is and anything that cannot be one as 0."""
    good = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9
    return value if good and isinstance(value, int) else 0


def _well_formed(text: str) -> str:
    """Replace lone surrogates, which no encoding takes."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)

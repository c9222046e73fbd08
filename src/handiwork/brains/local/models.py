"""The port of a model: what it is asked, what it answers. Types only, no I/O."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Something said."""

    text: str


class Media(msgspec.Struct, frozen=True, tag="media"):
    """An image or a document, with the protocol's `source` (`base64`, `url` or `text`)."""

    kind: Literal["image", "document"]
    source: Mapping[str, Any]
    title: str = ""


class ToolCall(msgspec.Struct, frozen=True):
    """A tool the model wants run. `fault` says why its input cannot be read; it is not run then."""

    name: str
    input: dict[str, Any]
    id: str = ""
    fault: str = ""


class ToolResult(msgspec.Struct, frozen=True):
    """How one tool call ended. `text` is the whole as text, `content` as it was."""

    name: str
    text: str
    is_error: bool = False
    id: str = ""
    content: tuple[Text | Media, ...] = ()


class Message(msgspec.Struct, frozen=True):
    """One side's part of a conversation; the roles alternate, the user begins."""

    role: Literal["user", "assistant"]
    blocks: tuple[Text | Media | ToolCall | ToolResult, ...]


class ToolOffer(msgspec.Struct, frozen=True):
    """A tool that the model may call; the schema's root is an object."""

    name: str
    description: str
    input_schema: Mapping[str, Any]


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """List prices in US dollars for a million tokens."""

    input: float
    output: float
    cache_read: float
    cache_write: float


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What the loop must know of a model. `context_tokens` 0: it is not shown the conversation."""

    context_tokens: int = 0
    max_output_tokens: int = 0
    prices: Prices | None = None


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request.

    `message` and `results` are what is new: the user's message, or the results of the last
    response's calls in their order. `history` is the whole conversation, with them, for a model
    whose profile asks for it. `scratch` is what the model returned with its last response in this
    session, kept for it and never read by others; empty at first.
    """

    system: str
    message: str | None = None
    results: tuple[ToolResult, ...] = ()
    scratch: Mapping[str, Any] = {}
    history: tuple[Message, ...] = ()
    tools: tuple[ToolOffer, ...] = ()


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of one request; `input_tokens` are those that no cache held."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    @property
    def total(self) -> int:
        """All that the request put into the context."""
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_read_tokens
            + self.cache_write_tokens
        )


Stop = Literal["end", "length", "pause", "refusal"]


class ModelResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says and wants run. Without a tool call the turn ends, unless it paused.

    `stop` says why it ended: all said, cut at its longest answer, paused by its provider, refused.
    """

    blocks: tuple[Text | ToolCall, ...]
    scratch: dict[str, Any] = {}
    usage: Usage = Usage()
    stop: Stop = "end"
    refusal: dict[str, Any] | None = None


Kind = Literal["unknown", "overloaded", "rate_limited", "request_failed", "billing", "context"]


class ModelFailedError(Exception):
    """The model cannot answer; the text is for the session's log and holds no key.

    `retry`: the same request may succeed later, after `retry_after` seconds where the provider said
    so. The kind `context` says that the conversation is longer than the model takes.
    """

    def __init__(
        self,
        text: str,
        *,
        kind: Kind = "unknown",
        retry: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.retry = retry
        self.retry_after = retry_after


class ModelRefusedError(Exception):
    """The model cannot serve such an agent; the text says what to change."""


Tell = Callable[[int, str], None]
"""Told while the answer comes: which of its blocks, and the next piece of that block's text."""


class Model(Protocol):
    """Something that decides what comes next."""

    @property
    def profile(self) -> Profile:
        """Its limits and prices."""
        ...

    def check(self, system: str) -> None:
        """Raise ModelRefusedError when an agent with this system prompt cannot be served."""
        ...

    async def respond(self, request: ModelRequest, tell: Tell) -> ModelResponse:
        """Answer one request, telling text as it comes; cancelling ends it at once.

        The text of a block is the sum of what was told of it. ModelFailedError: no answer.
        """
        ...

    async def close(self) -> None:
        """Give up its connections."""
        ...

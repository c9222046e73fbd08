"""The port of a model: what it is asked, what it answers. Types only, no I/O."""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec


class ToolResult(msgspec.Struct, frozen=True):
    """How one tool call of the last response ended, in the order of the calls."""

    name: str
    text: str
    is_error: bool = False


class Text(msgspec.Struct, frozen=True):
    """Something said to the user."""

    text: str


class ToolCall(msgspec.Struct, frozen=True):
    """A tool the model wants run."""

    name: str
    input: dict[str, Any]


class ModelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request: the new message of the user, or the results of the last response's calls.

    `scratch` is what the model returned with its last response in this session, kept for it and
    never read by others; empty at first.
    """

    system: str
    message: str | None
    results: tuple[ToolResult, ...] = ()
    scratch: Mapping[str, Any] = {}


class ModelResponse(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says and wants run. Without a tool call the turn ends."""

    blocks: tuple[Text | ToolCall, ...]
    scratch: dict[str, Any] = {}
    input_tokens: int = 0
    output_tokens: int = 0


class ModelFailedError(Exception):
    """The model cannot answer; the text is for the session's log."""


class ModelRefusedError(Exception):
    """The model cannot serve such an agent; the text says what to change."""


class Model(Protocol):
    """Something that decides what comes next."""

    def check(self, system: str) -> None:
        """Raise ModelRefusedError when an agent with this system prompt cannot be served."""
        ...

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Answer one request. ModelFailedError ends the turn with a session.error."""
        ...

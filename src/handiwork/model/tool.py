"""Tool calls and their results, as every brain and tool of ours sees them."""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec


class Permission(enum.Enum):
    """The brain's verdict on a call; anything but ALLOW does not run."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"
    UNKNOWN = "unknown"


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    """One call the brain asks for. `custom` selects how the result is posted.

    `evaluation` is what the brain says about how it came to its verdict; for people only.
    """

    id: str
    session_id: str
    name: str
    input: Mapping[str, Any]
    custom: bool = False
    permission: Permission = Permission.ALLOW
    evaluation: str = ""
    thread_id: str = ""
    processed_at: datetime | None = None


class TextBlock(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="text"):
    """Well-formed Unicode text."""

    text: str


class ImageBlock(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """An image, base64."""

    media_type: str
    data: str


class DocumentBlock(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="document"):
    """A document (PDF), base64."""

    media_type: str
    data: str
    title: str = ""


Block = TextBlock | ImageBlock | DocumentBlock


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What goes back to the brain for one call."""

    tool_use_id: str
    content: tuple[Block, ...]
    is_error: bool = False
    custom: bool = False


LedgerState = Literal["seen", "started", "stored", "posted", "refused"]


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The durable trace of one call: seen → started → stored → posted (or refused for good)."""

    tool_use_id: str
    session_id: str
    name: str
    state: LedgerState
    custom: bool = False
    result: ToolResult | None = None
    reason: str = ""
    updated_at: datetime


def text_result(call: ToolCall, text: str, *, is_error: bool = False) -> ToolResult:
    """Return a result of one text; lone surrogates become U+FFFD, nothing becomes `(no output)`."""
    clean = text.encode("utf-8", "replace").decode("utf-8") if text else "(no output)"
    return ToolResult(
        tool_use_id=call.id,
        content=(TextBlock(text=clean),),
        is_error=is_error,
        custom=call.custom,
    )

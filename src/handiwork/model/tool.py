"""Tool calls and their results, as every brain and tool of ours sees them."""

import enum
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

_NO_TEXT = re.compile("[\0\ud800-\udfff]")


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


def well_formed(text: str) -> str:
    """Return text that every brain takes: no NUL, no lone surrogate (each U+FFFD), never empty."""
    return _NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", text) or "(no output)"


def text_result(call: ToolCall, text: str, *, is_error: bool = False) -> ToolResult:
    """Return a result of one text, well formed."""
    return ToolResult(
        tool_use_id=call.id,
        content=(TextBlock(text=well_formed(text)),),
        is_error=is_error,
        custom=call.custom,
    )

"""A snapshot: one generation of what a sandbox wrote, kept outside of it."""

import re
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from handiwork.model.errors import ConfigError

Reason = Literal[
    "request", "idle", "stop", "call", "before rollback", "before close", "fork", "export"
]
"""Why one is taken; `call`: after a tool call that may have written."""

MAX_CHANGES = 10_000
"""Of one answer about what differs."""
MAX_PINS = 64
"""Names of one sandbox."""

_PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One generation. `image` is the digest of what it stands on; `skipped` names what was left out.

    `new_bytes` is what it added to the store, `content_bytes` what its files hold.
    """

    sandbox_id: str
    number: int
    created_at: datetime
    reason: str
    image: str
    entries: int
    content_bytes: int
    new_bytes: int
    skipped: tuple[str, ...] = ()
    skipped_count: int = 0
    pins: tuple[str, ...] = ()


class SnapshotStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How the last try went. `failure` is empty when it went well; `number` is the last good one, or 0."""

    sandbox_id: str
    number: int = 0
    taken_at: datetime | None = None
    failure: str = ""
    failed_at: datetime | None = None


class SnapshotState(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a sandbox's snapshots, the newest first."""

    status: SnapshotStatus
    snapshots: tuple[Snapshot, ...]


class SnapshotChange(msgspec.Struct, frozen=True, kw_only=True):
    """A path that differs between two generations; bytes that are no text are escaped."""

    path: str
    change: Literal["added", "removed", "changed"]


class SnapshotDiff(msgspec.Struct, frozen=True, kw_only=True):
    """What differs, by path. `truncated`: there is more than was asked for."""

    before: int
    after: int
    changes: Annotated[tuple[SnapshotChange, ...], msgspec.Meta(max_length=MAX_CHANGES)]
    truncated: bool = False


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What the brain is to be told of its sandbox, with the next result of a tool."""

    id: str
    session_id: str
    text: str
    at: datetime


def check_pin(name: str) -> str:
    """Return a pin's name unchanged; ConfigError for one that is none."""
    if not _PIN.fullmatch(name):
        raise ConfigError(
            f"pin {name[:80]!r} is not valid: use 1-64 letters, digits, '.', '_', '-',"
            " starting with a letter or digit"
        )
    return name

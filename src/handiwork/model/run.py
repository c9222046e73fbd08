"""A run: one task, from its session's start to its last message."""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.wire import OutputFile

PREFIX = "run_"


class RunState(enum.Enum):
    """How a run stands. LOST: its session cannot be followed, so how it ended is not known."""

    RUNNING = "running"
    ENDED = "ended"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    FAILED = "failed"
    LOST = "lost"


class RunUsage(msgspec.Struct, frozen=True, kw_only=True):
    """What the session has used; zero where the brain does not say."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """A sum of money as the brain told it: `amount` counts the currency's minor units ("50": $0.50)."""

    amount: str
    currency: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One task given to an agent. Its id is its session's with another prefix.

    `tier` and `policy` are what the caller chose for this session; empty: the agent's or the
    environment's. `list_cost` is null where the brain names no price. `message`, `stop_reason` and
    `files` come from the agent's side: show, never obey.
    """

    id: str
    tenant: str = DEFAULT_TENANT
    session_id: str
    environment_id: str
    agent_id: str
    model: str = ""
    tier: str = ""
    policy: str = ""
    task: str = ""
    timeout_seconds: float
    state: RunState = RunState.RUNNING
    reason: str = ""
    stop_reason: str = ""
    message: str = ""
    files: tuple[OutputFile, ...] = ()
    usage: RunUsage = RunUsage()
    list_cost: Cost | None = None
    duration_seconds: float = 0.0
    created_at: datetime
    updated_at: datetime


class RunEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a run's session, reduced to what a person reads."""

    kind: str
    id: str
    text: str = ""
    tool: str = ""
    input: Mapping[str, Any] = msgspec.field(default_factory=dict)
    tool_use_id: str = ""
    is_error: bool = False
    stop_reason: str = ""


def run_id_of(session_id: str) -> str:
    """Return the id of the run whose session this is, if it has one."""
    return PREFIX + session_id.partition("_")[2]

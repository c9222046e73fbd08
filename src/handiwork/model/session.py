"""Sessions and the work items that bring them to us."""

import enum
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec

from handiwork.model.attachment import MemoryStoreRef, SkillRef
from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.redacted import shown_as_repr
from handiwork.model.tool import ToolCall


class SessionState(enum.Enum):
    """Where a session is, as we see it; `sessions/lifecycle.py` holds the moves."""

    CLAIMED = "claimed"
    STARTING = "starting"
    ACTIVE = "active"
    SLEEPING = "sleeping"
    REFUSED = "refused"
    LOST = "lost"
    STOPPED = "stopped"
    ENDED = "ended"


class WaitingKind(enum.Enum):
    """What a session can wait for that somebody may have to look after."""

    CONFIRMATION = "confirmation"
    UNSERVED_TOOL = "unserved_tool"
    TOOL_FAILED_TO_LOAD = "tool_failed_to_load"
    SANDBOX = "sandbox"
    MEMORY_STORE = "memory_store"
    SKILL = "skill"
    STAGING = "staging"
    BRAIN = "brain"
    REFUSED_RESULT = "refused_result"
    RETRY = "retry"


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a session waits for. `name` is the tool, skill or store that is meant."""

    kind: WaitingKind
    reason: str
    name: str = ""
    tool_use_id: str = ""
    since: datetime


class RefusedResult(msgspec.Struct, frozen=True, kw_only=True):
    """A result that the brain refused for good: the call ran, and the agent never learns how."""

    tool_use_id: str
    tool: str
    reason: str
    at: datetime


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What we keep of one session of the brain. `reason` says why it is REFUSED, LOST or STOPPED.

    `waiting` is what it waits for, oldest first; `refused_results` are the last few.
    """

    id: str
    tenant: str = DEFAULT_TENANT
    environment_id: str
    agent_id: str = ""
    agent_name: str = ""
    title: str = ""
    state: SessionState
    reason: str = ""
    tier: str = ""
    sandbox_id: str = ""
    work_id: str = ""
    waiting: tuple[Waiting, ...] = ()
    refused_results: tuple[RefusedResult, ...] = ()
    created_at: datetime
    updated_at: datetime


def served_as(environment_id: str, session_id: str) -> str:
    """Return what one that is served is known by: another environment's session of this id is another."""
    return f"{environment_id}/{session_id}"


class WorkItem(msgspec.Struct, frozen=True, kw_only=True):
    """A unit of the brain's queue. `secret` opens this session only and is never shown."""

    id: str
    environment_id: str
    kind: Literal["session", "healthcheck"]
    session_id: str = ""
    secret: str | None = None
    created_at: datetime | None = None

    @property
    def served_as(self) -> str:
        """What its session is known by while it is served."""
        return served_as(self.environment_id, self.session_id)

    def __repr__(self) -> str:
        return f"WorkItem({self.id}, {self.kind}, session={self.session_id})"

    __rich_repr__ = shown_as_repr


class BrainSession(msgspec.Struct, frozen=True, kw_only=True):
    """The brain's own view of a session: who the agent is, what it declares and brings along."""

    id: str
    agent_id: str
    agent_name: str
    title: str = ""
    terminated: bool = False
    metadata: Mapping[str, str] = msgspec.field(default_factory=dict)
    vault_ids: tuple[str, ...] = ()
    toolset: bool = False
    custom_tools: tuple[str, ...] = ()
    skills: tuple[SkillRef, ...] = ()
    memory_stores: tuple[MemoryStoreRef, ...] = ()


class ToolCalled(msgspec.Struct, frozen=True, kw_only=True):
    """The brain asks for a call that has no answer yet."""

    call: ToolCall


class ToolSettled(msgspec.Struct, frozen=True, kw_only=True):
    """The call has an answer at the brain, ours or another's."""

    tool_use_id: str


class ToolConfirmed(msgspec.Struct, frozen=True, kw_only=True):
    """A person decided on a held call."""

    tool_use_id: str
    allowed: bool
    message: str = ""


class Interrupted(msgspec.Struct, frozen=True, kw_only=True):
    """The user interrupted; calls processed at or before `processed_at` are settled by it."""

    processed_at: datetime
    thread_id: str = ""


class TurnIdle(msgspec.Struct, frozen=True, kw_only=True):
    """The turn rests; only `requires_action` leaves it open."""

    stop_reason: str


class TurnRunning(msgspec.Struct, frozen=True, kw_only=True):
    """A turn is under way."""


class SessionChanged(msgspec.Struct, frozen=True, kw_only=True):
    """Tools or resources are others from the next turn on: what the session was described as is old."""

    id: str


class BrainUnreached(msgspec.Struct, frozen=True, kw_only=True):
    """The brain's stream broke and could not be opened again yet; what it says is missed."""

    reason: str


class BrainReached(msgspec.Struct, frozen=True, kw_only=True):
    """The stream is open again, and all that was missed follows."""


class BrainSessionEnded(msgspec.Struct, frozen=True, kw_only=True):
    """The session was terminated, archived or deleted: no results are accepted."""

    reason: str


BrainEvent = (
    ToolCalled
    | ToolSettled
    | ToolConfirmed
    | Interrupted
    | TurnIdle
    | TurnRunning
    | SessionChanged
    | BrainUnreached
    | BrainReached
    | BrainSessionEnded
)


class SessionEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What operators see happen to a session, in order; `data` holds no secret and no output."""

    sequence: int
    session_id: str
    at: datetime
    kind: str
    data: Mapping[str, Any] = msgspec.field(default_factory=dict)

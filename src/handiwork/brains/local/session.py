"""One session as it is kept: what rarely changes, what changes with every event, and its view."""

from datetime import datetime, timedelta
from typing import Any

import msgspec

from handiwork.brains.local.queue import timestamp
from handiwork.brains.local.streams import Subscriber
from handiwork.brains.local.turn import Event, Turn, cents, usage_of
from handiwork.model.ids import DEFAULT_TENANT

RECENT_RESULTS = 256
TERMINATED = "terminated"


class Body(msgspec.Struct, kw_only=True):
    """What its creator said, and the agent as it was then."""

    id: str
    environment_id: str
    agent: dict[str, Any]
    title: str | None
    metadata: dict[str, str]
    created_at: datetime
    archived_at: datetime | None = None
    resources: list[dict[str, Any]] = []
    vault_ids: list[str] = []
    budget_cents: int | None = None

    def store(self, store_id: str) -> dict[str, Any] | None:
        """Return the resource that attaches a memory store."""
        of_store = (each for each in self.resources if each["memory_store_id"] == store_id)
        return next(of_store, None)


class Progress(msgspec.Struct, kw_only=True):
    """What every event may change. `waiting_at` tells where unprocessed messages stand."""

    turn: Turn
    updated_at: datetime
    running_since: datetime | None = None
    active_seconds: float = 0.0
    waiting_at: dict[str, int] = msgspec.field(default_factory=dict)


class Session(msgspec.Struct, kw_only=True):
    """A session in memory. `writes` counts what is on its way to the disk."""

    body: Body
    progress: Progress
    next_position: int
    subscribers: set[Subscriber] = msgspec.field(default_factory=set)
    recent_results: dict[str, Event] = msgspec.field(default_factory=dict)
    writes: int = 0
    asking: bool = False
    gone: bool = False

    @property
    def id(self) -> str:
        """Its id."""
        return self.body.id

    @property
    def thread_id(self) -> str:
        """The id of its one thread."""
        return f"sthr_{self.id.partition('_')[2]}"

    @property
    def turn(self) -> Turn:
        """Where it stands."""
        return self.progress.turn

    @property
    def status(self) -> str:
        """The protocol's word for where it stands."""
        return status(self.body, self.progress)

    @property
    def budget(self) -> dict[str, Any] | None:
        """Its budget in the protocol's words."""
        return budget(self.body)

    @property
    def over_budget(self) -> bool:
        """Whether its cost reached its budget."""
        most = self.body.budget_cents
        return most is not None and cents(self.turn.cost or 0) >= most

    @property
    def evictable(self) -> bool:
        """Whether nothing needs it in memory."""
        return not (self.subscribers or self.writes or self.asking or self.turn.open)

    def move(self, turn: Turn, now: datetime) -> None:
        """Take over a new turn and keep the time."""
        progress = self.progress
        progress.turn = turn
        progress.updated_at = now
        if turn.model_due and progress.running_since is None:
            progress.running_since = now
        elif not turn.model_due and progress.running_since is not None:
            progress.active_seconds += (now - progress.running_since) / timedelta(seconds=1)
            progress.running_since = None

    def preview(self, event_id: str, data: bytes, starts: bool) -> None:
        """Show a piece of a preview to the streams that asked for previews."""
        for subscriber in self.subscribers:
            subscriber.preview(event_id, data, starts)

    def remember_result(self, call_id: str, event: Event) -> None:
        """Keep a result at hand for the case that it is posted twice."""
        self.recent_results[call_id] = event
        if len(self.recent_results) > RECENT_RESULTS:
            del self.recent_results[next(iter(self.recent_results))]

    def row(self) -> dict[str, Any]:
        """Return the row of the `sessions` table, which events do not change."""
        return {
            "id": self.id,
            "tenant_id": DEFAULT_TENANT,
            "environment_id": self.body.environment_id,
            "agent_id": self.body.agent["id"],
            "created_at": timestamp(self.body.created_at),
            "archived_at": timestamp(self.body.archived_at) if self.body.archived_at else None,
            "body": msgspec.json.encode(self.body),
        }

    def progress_row(self) -> dict[str, Any]:
        """Return what an event changes."""
        return {
            "status": self.status,
            "turn_open": self.turn.open,
            "state": msgspec.json.encode(self.progress),
        }


def status(body: Body, progress: Progress) -> str:
    """Return `terminated` once archived, else what the turn says."""
    return TERMINATED if body.archived_at else progress.turn.status


def loaded(body: bytes, state: bytes, next_position: int) -> Session:
    """Return a session from its row."""
    return Session(
        body=msgspec.json.decode(body, type=Body),
        progress=msgspec.json.decode(state, type=Progress),
        next_position=next_position,
    )


def budget(body: Body) -> dict[str, Any] | None:
    """Return the budget in the protocol's words, None where there is none."""
    if body.budget_cents is None:
        return None
    amount = {"amount": str(body.budget_cents), "currency": "USD"}
    return {"type": "limit", "max_list_cost": amount}


def view(body: Body, progress: Progress) -> dict[str, Any]:
    """Return the session as the protocol shows it."""
    usage = {**usage_of(progress.turn), "active_seconds": progress.active_seconds}
    seconds = (progress.updated_at - body.created_at) / timedelta(seconds=1)
    return {
        "id": body.id,
        "type": "session",
        "status": status(body, progress),
        "title": body.title,
        "agent": body.agent,
        "environment_id": body.environment_id,
        "metadata": body.metadata,
        "resources": body.resources,
        "vault_ids": body.vault_ids,
        "outcome_evaluations": [],
        "stats": {"active_seconds": progress.active_seconds, "duration_seconds": seconds},
        "usage": usage,
        "budget": budget(body),
        "deployment_id": None,
        "created_at": timestamp(body.created_at),
        "updated_at": timestamp(progress.updated_at),
        "archived_at": timestamp(body.archived_at) if body.archived_at else None,
    }

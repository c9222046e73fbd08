"""What the engine counts, in a registry of its own, and as the text that Prometheus reads.

Every label has a small closed set of values: names that an agent, a brain or a guest chooses never
become one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from handiwork.model.session import Waiting, WaitingKind
from handiwork.model.snapshot import Reason

CONTENT_TYPE: Final = "text/plain; version=0.0.4"

PREFIX: Final = "handiwork_"

STOCK_TOOLS: Final = frozenset({"bash", "read", "write", "edit", "glob", "grep"})
CUSTOM: Final = "custom"
"""The label of every tool that is not of the stock toolset."""

Outcome = Literal["ok", "error", "interrupted", "cut_short", "unserved", "denied"]
Polled = Literal["work", "empty", "failed", "refused"]
Asked = Literal["goes_on", "over", "failed"]
Posted = Literal["taken", "retried", "refused"]

_CALL_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_SNAPSHOT_SECONDS = (0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)
_CLAIM_SECONDS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 5, 10, 30, 60, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """What there is when somebody looks. `sandboxes` are keyed by state and tier.

    `tasks` are those of the event loop.
    """

    sessions: Mapping[str, int] = field(default_factory=dict)
    sandboxes: Mapping[tuple[str, str], int] = field(default_factory=dict)
    tasks: int = 0


class Metrics:
    """The counters of one process, handed down to whoever has something to count."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._waiting: dict[str, Sequence[Waiting]] = {}
        self._calls = self._counter(
            "tool_calls", "Tool calls that ended, by how.", "tool", "outcome"
        )
        self._call_seconds = self._histogram(
            "tool_call_seconds", "Time that a tool ran.", _CALL_SECONDS, "tool"
        )
        self._running = self._gauge("tool_calls_running", "Tool calls that run.")
        self._stragglers = self._gauge(
            "tool_stragglers", "Cancelled tool calls that have not ended."
        )
        self._posts = self._counter(
            "result_posts", "Posts of results, by what came of them.", "outcome"
        )
        self._interrupts = self._counter("interrupts", "Interrupts by users.")
        self._polls = self._counter("polls", "Polls of work queues, by outcome.", "outcome")
        self._questions = self._counter(
            "session_questions", "Resting sessions asked about at their brain.", "outcome"
        )
        self._claims = self._counter("claims", "Work items claimed.")
        self._claim_seconds = self._histogram(
            "claim_seconds", "Time from queued to claimed, by two clocks.", _CLAIM_SECONDS
        )
        self._leases = self._gauge("leases_held", "Leases held.")
        self._lost = self._counter("leases_lost", "Leases lost.")
        self._sessions = self._gauge("sessions", "Sessions, by state.", "state")
        self._waits = self._gauge(
            "session_waits", "What the sessions that are served wait for, by kind.", "kind"
        )
        self._oldest = self._gauge(
            "session_wait_oldest_seconds", "Age of the oldest of these waits, by kind.", "kind"
        )
        self._sandboxes = self._gauge(
            "sandboxes", "Sandboxes that are not gone, by state and tier.", "state", "tier"
        )
        self._pooled = self._gauge(
            "pool_sandboxes", "Sandboxes that stand ready to be claimed, by tier.", "tier"
        )
        self._wanted = self._counter(
            "pool_wanted", "Sandboxes made new, by whether one stood ready.", "tier", "outcome"
        )
        self._snapshots = self._counter(
            "snapshots",
            "Snapshots of sandboxes, by why and by what came of them.",
            "why",
            "outcome",
        )
        self._snapshot_seconds = self._histogram(
            "snapshot_seconds", "Time that a snapshot took.", _SNAPSHOT_SECONDS
        )
        self._snapshot_bytes = self._counter(
            "snapshot_new_bytes", "Bytes that snapshots added to their store."
        )
        self._restores = self._counter(
            "snapshot_restores", "Restores of snapshots, by what came of them.", "outcome"
        )
        self._tasks = self._gauge("tasks", "Tasks of the control plane's event loop.")

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, help_, labels, registry=self._registry)

    def _gauge(self, name: str, help_: str, *labels: str) -> Gauge:
        return Gauge(PREFIX + name, help_, labels, registry=self._registry)

    def _histogram(
        self, name: str, help_: str, buckets: Sequence[float], *labels: str
    ) -> Histogram:
        return Histogram(PREFIX + name, help_, labels, buckets=buckets, registry=self._registry)

    # --- tool calls ---

    def call_began(self) -> None:
        """A tool starts to run."""
        self._running.inc()

    def call_ended(self, tool: str, seconds: float) -> None:
        """A tool has stopped to run, however."""
        self._running.dec()
        self._call_seconds.labels(_tool(tool)).observe(seconds)

    def call(self, tool: str, outcome: Outcome) -> None:
        """A call came to its end."""
        self._calls.labels(_tool(tool), outcome).inc()

    def straggling(self, count: int) -> None:
        """So many cancelled tools have not ended."""
        self._stragglers.set(count)

    def post(self, outcome: Posted) -> None:
        """A result was posted, or has to be posted again, or was refused for good."""
        self._posts.labels(outcome).inc()

    def interrupt(self) -> None:
        """A user interrupted."""
        self._interrupts.inc()

    # --- work ---

    def poll(self, outcome: Polled) -> None:
        """A queue was asked for work."""
        self._polls.labels(outcome).inc()

    def asked(self, outcome: Asked) -> None:
        """A brain was asked whether a resting session is over."""
        self._questions.labels(outcome).inc()

    def claim(self, seconds: float | None) -> None:
        """Work was claimed so long after it was queued; None: the brain does not say when."""
        self._claims.inc()
        if seconds is not None and math.isfinite(seconds):
            self._claim_seconds.observe(max(0.0, seconds))

    def lease_held(self) -> None:
        """A lease is ours."""
        self._leases.inc()

    def lease_ended(self) -> None:
        """A lease is ours no more, by our own will or not."""
        self._leases.dec()

    def lease_lost(self) -> None:
        """A lease was lost, or was another's when we came."""
        self._lost.inc()

    def waits(self, known_as: str, waiting: Sequence[Waiting]) -> None:
        """A session (`served_as`) waits for these; one that waits for nothing is forgotten."""
        if waiting:
            self._waiting[known_as] = waiting
        else:
            self._waiting.pop(known_as, None)

    # --- sandboxes ---

    def pooled(self, tier: str, count: int) -> None:
        """So many sandboxes of a tier stand ready."""
        self._pooled.labels(tier).set(count)

    def wanted(self, tier: str, *, stood_ready: bool) -> None:
        """A new sandbox was wanted of a tier."""
        self._wanted.labels(tier, "ready" if stood_ready else "missed").inc()

    # --- snapshots ---

    def snapshot(
        self, why: Reason, outcome: Literal["taken", "failed"], seconds: float | None, size: int
    ) -> None:
        """A snapshot was taken, which added so many bytes; or none was."""
        self._snapshots.labels(why.replace(" ", "_"), outcome).inc()
        if seconds is not None:
            self._snapshot_seconds.observe(seconds)
        self._snapshot_bytes.inc(size)

    def restore(self, outcome: Literal["made", "damaged", "failed"]) -> None:
        """Files were made again of a snapshot, or were not."""
        self._restores.labels(outcome).inc()

    # --- reading ---

    def text(self, census: Census, now: datetime) -> bytes:
        """Return everything in Prometheus' text format."""
        self._sessions.clear()
        for state, count in census.sessions.items():
            self._sessions.labels(state).set(count)
        self._sandboxes.clear()
        for (state, tier), count in census.sandboxes.items():
            self._sandboxes.labels(state, tier).set(count)
        self._tasks.set(census.tasks)
        for kind in WaitingKind:
            since = [
                one.since for all_ in self._waiting.values() for one in all_ if one.kind is kind
            ]
            oldest = (now - min(since)).total_seconds() if since else 0.0
            self._waits.labels(kind.value).set(len(since))
            self._oldest.labels(kind.value).set(max(0.0, oldest))
        return generate_latest(self._registry)


def _tool(name: str) -> str:
    return name if name in STOCK_TOOLS else CUSTOM

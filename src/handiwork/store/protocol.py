"""The ports of what is kept: one small protocol for each noun, all for one tenant at a time.

Writes are durable when they return. Every method may raise NotFoundError or ConflictError as told.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from handiwork.model.agent import AgentSettings
from handiwork.model.audit import AuditRecord
from handiwork.model.environment import KeptLease
from handiwork.model.language_model import ModelSettings
from handiwork.model.placeholder import KeptPlaceholder
from handiwork.model.policy import Policy
from handiwork.model.process import ProcessRecord
from handiwork.model.run import Run
from handiwork.model.sandbox import SandboxRecord
from handiwork.model.secret import SealedSecret, SecretInfo
from handiwork.model.session import Session, SessionEvent
from handiwork.model.snapshot import Notice, Snapshot, SnapshotStatus
from handiwork.model.tool import LedgerEntry, ToolCall, ToolResult
from handiwork.model.webhook import ReceivedWebhook


class Sessions(Protocol):
    """Sessions and what operators see happen to them."""

    async def save(self, session: Session) -> None:
        """Insert or replace."""
        ...

    async def get(self, session_id: str) -> Session:
        """NotFoundError when there is none."""
        ...

    async def list(self, *, state: str | None = None, limit: int = 100) -> list[Session]:
        """Newest first."""
        ...

    async def counts(self) -> Mapping[str, int]:
        """How many there are in each state that one is in."""
        ...

    async def record(
        self, session_id: str, kind: str, data: Mapping[str, Any], at: datetime
    ) -> SessionEvent:
        """Append an event; its sequence is one more than the session's last."""
        ...

    async def events(
        self, session_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[SessionEvent]:
        """Events with a greater sequence, in order."""
        ...


class Ledger(Protocol):
    """The durable trace of tool calls, each by its session and id: executed at most once, results
    survive us. Two sessions may have calls of one id: a brain chooses the ids of its own.
    """

    async def start(self, call: ToolCall, at: datetime) -> LedgerEntry:
        """Record seen and started in one commit; ConflictError when the call is there already."""
        ...

    async def store(self, session_id: str, result: ToolResult, at: datetime) -> None:
        """started → stored, with the result."""
        ...

    async def settle(
        self, session_id: str, tool_use_id: str, at: datetime, *, refused: str = ""
    ) -> None:
        """stored → posted, or refused with the brain's reason. Idempotent."""
        ...

    async def get(self, session_id: str, tool_use_id: str) -> LedgerEntry | None:
        """The entry of one call."""
        ...

    async def open(self, session_id: str) -> list[LedgerEntry]:
        """Entries of a session that are started or stored: what a restart must answer for."""
        ...


class Agents(Protocol):
    """What the operator decided for agents, each by environment and id."""

    async def put(self, settings: AgentSettings) -> None:
        """Insert or replace."""
        ...

    async def remove(self, environment_id: str, agent_id: str) -> None:
        """Forget one; it is fine when there is none."""
        ...

    async def get(self, environment_id: str, agent_id: str) -> AgentSettings | None:
        """None when nothing was decided."""
        ...

    async def list(self) -> list[AgentSettings]:
        """By agent id, then environment."""
        ...


class Policies(Protocol):
    """Policies by name; every write is a new version and old ones stay."""

    async def put(self, policy: Policy, at: datetime) -> int:
        """Write and return the version, from 1."""
        ...

    async def get(self, name: str) -> Policy:
        """The newest version; NotFoundError when there is none."""
        ...

    async def list(self) -> list[tuple[Policy, int, datetime]]:
        """Newest version of each, by name."""
        ...

    async def delete(self, name: str) -> None:
        """NotFoundError when there is none."""
        ...


class Secrets(Protocol):
    """Sealed egress secrets: write-only but for what the proxy needs."""

    async def put(self, secret: SealedSecret, at: datetime) -> None:
        """Write a version; ConflictError when it is not one more than the last."""
        ...

    async def sealed(self, names: Sequence[str]) -> list[SealedSecret]:
        """Newest versions of those that exist."""
        ...

    async def list(self) -> list[SecretInfo]:
        """By name."""
        ...

    async def delete(self, name: str) -> None:
        """NotFoundError when there is none."""
        ...


class Audit(Protocol):
    """The index of the proxy's audit segments."""

    async def append(self, records: Sequence[AuditRecord], *, segment: str, position: int) -> None:
        """Add records and remember how far the segment is indexed, in one commit."""
        ...

    async def positions(self) -> dict[str, int]:
        """Bytes indexed of each segment."""
        ...

    async def query(
        self,
        *,
        session_id: str | None = None,
        sandbox_id: str | None = None,
        allowed: bool | None = None,
        limit: int = 100,
    ) -> list[AuditRecord]:
        """Newest first."""
        ...


class Placeholders(Protocol):
    """What stands for secrets in the sandbox of a session."""

    async def put(self, session_id: str, kept: KeptPlaceholder) -> None:
        """Insert, or replace that of the same variable."""
        ...

    async def list(self, session_id: str) -> list[KeptPlaceholder]:
        """Those of a session, by variable."""
        ...

    async def delete(self, session_id: str) -> None:
        """Forget those of a session. No-op when there are none."""
        ...


class Sandboxes(Protocol):
    """Sandboxes that exist or existed."""

    async def save(self, record: SandboxRecord) -> None:
        """Insert or replace."""
        ...

    async def get(self, sandbox_id: str) -> SandboxRecord:
        """NotFoundError when there is none."""
        ...

    async def list(self, *, include_gone: bool = False, limit: int = 1000) -> list[SandboxRecord]:
        """Newest first."""
        ...

    async def counts(self) -> Mapping[tuple[str, str], int]:
        """How many that are not gone there are of each state and tier."""
        ...


class ControlSecrets(Protocol):
    """Secrets of our own (keys of brains): sealed by a key that only the control plane reads."""

    async def put(self, name: str, value: str) -> None:
        """Insert or replace."""
        ...

    async def get(self, name: str) -> str | None:
        """The value, or None."""
        ...

    async def delete(self, name: str) -> None:
        """Forget one. Idempotent."""
        ...


class Models(Protocol):
    """Models that operators wrote over the API; their keys are control secrets."""

    async def put(self, settings: ModelSettings) -> None:
        """Insert or replace."""
        ...

    async def get(self, name: str) -> ModelSettings | None:
        """None when there is none."""
        ...

    async def list(self) -> list[ModelSettings]:
        """By name."""
        ...

    async def delete(self, name: str) -> None:
        """NotFoundError when there is none."""
        ...


class Webhooks(Protocol):
    """Webhooks that were received: what a second delivery of the same id is known by."""

    async def add(
        self, webhook: ReceivedWebhook, *, keep_from: datetime, keep_at_most: int
    ) -> bool:
        """Add it; False when its id is there already.

        Those received before `keep_from`, and all but the newest `keep_at_most`, are dropped.
        """
        ...

    async def list(self, *, limit: int = 100) -> list[ReceivedWebhook]:
        """Newest first."""
        ...


class Runs(Protocol):
    """Tasks given over the API, and how they ended."""

    async def save(self, run: Run) -> None:
        """Insert or replace."""
        ...

    async def get(self, run_id: str) -> Run:
        """NotFoundError when there is none."""
        ...

    async def list(self, *, limit: int = 100) -> list[Run]:
        """Newest first."""
        ...


class Leases(Protocol):
    """Leases of work items that we hold, with the secret of each (sealed at rest)."""

    async def save(self, lease: KeptLease) -> None:
        """Insert or replace, by the environment and the id of the work item."""
        ...

    async def list(self) -> list[KeptLease]:
        """All of them, by work id, then environment."""
        ...

    async def remove(self, environment_id: str, work_id: str) -> None:
        """Forget one. Idempotent."""
        ...


class Processes(Protocol):
    """Processes that outlive their call, by id."""

    async def save(self, record: ProcessRecord) -> None:
        """Insert or replace."""
        ...

    async def get(self, process_id: str) -> ProcessRecord:
        """Return it, or raise NotFoundError."""
        ...

    async def running(self) -> list[ProcessRecord]:
        """Return all that are kept as running, by id."""
        ...

    async def list(self, sandbox_id: str, *, limit: int = 100) -> list[ProcessRecord]:
        """Return those of a sandbox, newest first."""
        ...

    async def delete(self, process_id: str) -> None:
        """Forget one. No-op when there is none."""
        ...


class Snapshots(Protocol):
    """What is known of generations of sandboxes; the blobs they lie in are the truth."""

    async def put(self, snapshot: Snapshot) -> None:
        """Insert or replace; its pins are not taken from it."""
        ...

    async def list(self, sandbox_id: str) -> list[Snapshot]:
        """Those of a sandbox with their pins, the newest first."""
        ...

    async def remove(self, sandbox_id: str, number: int) -> None:
        """Forget one; ConflictError while it is pinned. No-op when there is none."""
        ...

    async def sandboxes(self) -> Sequence[str]:
        """The ids of the sandboxes that have any, sorted."""
        ...

    async def pin(self, sandbox_id: str, name: str, number: int) -> None:
        """Let a name keep one, in place of what it kept. NotFoundError; ConflictError: too many."""
        ...

    async def unpin(self, sandbox_id: str, name: str) -> None:
        """Forget a name; NotFoundError."""
        ...

    async def pins(self, sandbox_id: str) -> Mapping[str, int]:
        """Number by name."""
        ...

    async def tell(self, status: SnapshotStatus) -> None:
        """Keep how the last try of a sandbox went."""
        ...

    async def status(self, sandbox_id: str) -> SnapshotStatus:
        """How the last try went; an empty one where there was none."""
        ...


class Notices(Protocol):
    """What brains are still to be told of their sessions' sandboxes."""

    async def add(self, notice: Notice) -> None:
        """Keep one until it is removed."""
        ...

    async def list(self, session_id: str) -> Sequence[Notice]:
        """Those of a session, the oldest first."""
        ...

    async def remove(self, ids: Sequence[str]) -> None:
        """Forget those that were told. No-op for those that are gone."""
        ...


class Store(Protocol):
    """All of it."""

    @property
    def sessions(self) -> Sessions:
        """Sessions."""
        ...

    @property
    def ledger(self) -> Ledger:
        """Tool calls."""
        ...

    @property
    def agents(self) -> Agents:
        """Agents."""
        ...

    @property
    def policies(self) -> Policies:
        """Policies."""
        ...

    @property
    def secrets(self) -> Secrets:
        """Sealed egress secrets."""
        ...

    @property
    def audit(self) -> Audit:
        """Egress decisions."""
        ...

    @property
    def sandboxes(self) -> Sandboxes:
        """Sandboxes."""
        ...

    @property
    def snapshots(self) -> Snapshots:
        """Snapshots."""
        ...

    @property
    def notices(self) -> Notices:
        """Notices."""
        ...

    @property
    def placeholders(self) -> Placeholders:
        """Placeholders."""
        ...

    @property
    def models(self) -> Models:
        """Models of the local brain."""
        ...

    @property
    def control_secrets(self) -> ControlSecrets:
        """Our own secrets."""
        ...

    @property
    def webhooks(self) -> Webhooks:
        """Webhooks that were received."""
        ...

    @property
    def runs(self) -> Runs:
        """Runs."""
        ...

    @property
    def processes(self) -> Processes:
        """Processes that outlive their call."""
        ...

    @property
    def leases(self) -> Leases:
        """Leases of work items."""
        ...

    async def close(self) -> None:
        """Flush and release the file."""
        ...

"""The store in memory: the fake behind every port of `store/protocol.py`.

It passes the same contract suite as the SQLite adapter; nothing survives the process.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from handiwork.model.agent import AgentSettings
from handiwork.model.audit import AuditRecord
from handiwork.model.environment import KeptLease
from handiwork.model.errors import ConflictError, NotFoundError
from handiwork.model.language_model import ModelSettings
from handiwork.model.placeholder import KeptPlaceholder
from handiwork.model.policy import Policy
from handiwork.model.process import ProcessRecord, ProcessState
from handiwork.model.run import Run
from handiwork.model.sandbox import SandboxRecord, SandboxState
from handiwork.model.secret import SealedSecret, SecretInfo
from handiwork.model.session import Session, SessionEvent
from handiwork.model.snapshot import MAX_PINS, Notice, Snapshot, SnapshotStatus
from handiwork.model.tool import LedgerEntry, ToolCall, ToolResult
from handiwork.model.webhook import ReceivedWebhook


class MemorySessions:
    """Sessions and their events."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._events: dict[str, list[SessionEvent]] = {}

    async def save(self, session: Session) -> None:
        """Insert or replace."""
        self._sessions[session.id] = session

    async def get(self, session_id: str) -> Session:
        """Return it, or raise NotFoundError."""
        if session_id not in self._sessions:
            raise NotFoundError(f"there is no session {session_id!r}")
        return self._sessions[session_id]

    async def list(self, *, state: str | None = None, limit: int = 100) -> list[Session]:
        """Return the newest first."""
        found = [s for s in self._sessions.values() if state is None or s.state.value == state]
        return sorted(found, key=lambda s: (s.created_at, s.id), reverse=True)[:limit]

    async def counts(self) -> Mapping[str, int]:
        """Count the sessions of each state."""
        return Counter(session.state.value for session in self._sessions.values())

    async def record(
        self, session_id: str, kind: str, data: Mapping[str, Any], at: datetime
    ) -> SessionEvent:
        """Append an event as JSON would keep it."""
        events = self._events.setdefault(session_id, [])
        kept = msgspec.json.decode(msgspec.json.encode(data))
        event = SessionEvent(
            sequence=len(events) + 1, session_id=session_id, at=at, kind=kind, data=kept
        )
        events.append(event)
        return event

    async def events(
        self, session_id: str, *, after: int = 0, limit: int = 1000
    ) -> Sequence[SessionEvent]:
        """Return events with a greater sequence, in order."""
        return self._events.get(session_id, [])[max(after, 0) :][:limit]


class MemoryLedger:
    """The trace of tool calls."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], LedgerEntry] = {}

    async def start(self, call: ToolCall, at: datetime) -> LedgerEntry:
        """Record the call as started, once."""
        if (call.session_id, call.id) in self._entries:
            raise ConflictError(f"the tool call {call.id!r} was started before")
        entry = LedgerEntry(
            tool_use_id=call.id,
            session_id=call.session_id,
            name=call.name,
            state="started",
            custom=call.custom,
            updated_at=at,
        )
        self._entries[call.session_id, call.id] = entry
        return entry

    async def store(self, session_id: str, result: ToolResult, at: datetime) -> None:
        """Keep the result of a started call."""
        entry = self._entry(session_id, result.tool_use_id)
        if entry.state != "started":
            raise ConflictError(f"the tool call {entry.tool_use_id!r} is {entry.state}")
        self._replace(entry, state="stored", result=result, updated_at=at)

    async def settle(
        self, session_id: str, tool_use_id: str, at: datetime, *, refused: str = ""
    ) -> None:
        """End the trace; the second time nothing happens."""
        entry = self._entry(session_id, tool_use_id)
        if entry.state in ("posted", "refused"):
            return
        if entry.state != "stored" and not refused:
            raise ConflictError(f"the tool call {tool_use_id!r} has no stored result to post")
        self._replace(
            entry, state="refused" if refused else "posted", reason=refused, updated_at=at
        )

    async def get(self, session_id: str, tool_use_id: str) -> LedgerEntry | None:
        """Return the entry of one call."""
        return self._entries.get((session_id, tool_use_id))

    async def open(self, session_id: str) -> list[LedgerEntry]:
        """Return what a restart must answer for, oldest first."""
        return [
            entry
            for entry in self._entries.values()
            if entry.session_id == session_id and entry.state in ("started", "stored")
        ]

    def _entry(self, session_id: str, tool_use_id: str) -> LedgerEntry:
        if (session_id, tool_use_id) not in self._entries:
            raise NotFoundError(f"the tool call {tool_use_id!r} was never started")
        return self._entries[session_id, tool_use_id]

    def _replace(self, entry: LedgerEntry, **changes: Any) -> None:
        self._entries[entry.session_id, entry.tool_use_id] = msgspec.structs.replace(
            entry, **changes
        )


class MemoryAgents:
    """What the operator decided for agents."""

    def __init__(self) -> None:
        self._settings: dict[tuple[str, str], AgentSettings] = {}

    async def put(self, settings: AgentSettings) -> None:
        """Insert or replace."""
        self._settings[settings.agent_id, settings.environment_id] = settings

    async def remove(self, environment_id: str, agent_id: str) -> None:
        """Forget one."""
        self._settings.pop((agent_id, environment_id), None)

    async def get(self, environment_id: str, agent_id: str) -> AgentSettings | None:
        """Return None when nothing was decided."""
        return self._settings.get((agent_id, environment_id))

    async def list(self) -> list[AgentSettings]:
        """Return all, by agent id, then environment."""
        return [self._settings[key] for key in sorted(self._settings)]


class MemoryPolicies:
    """Policies and all their versions."""

    def __init__(self) -> None:
        self._versions: dict[str, list[tuple[Policy, datetime]]] = {}
        self._live: set[str] = set()

    async def put(self, policy: Policy, at: datetime) -> int:
        """Write the next version; numbers go on after a deletion."""
        versions = self._versions.setdefault(policy.name, [])
        versions.append((policy, at))
        self._live.add(policy.name)
        return len(versions)

    async def get(self, name: str) -> Policy:
        """Return the newest version, or raise NotFoundError."""
        self._check(name)
        return self._versions[name][-1][0]

    async def list(self) -> list[tuple[Policy, int, datetime]]:
        """Return the newest version of each, by name."""
        newest = ((self._versions[name][-1], len(self._versions[name])) for name in self._live)
        rows = [(policy, version, at) for (policy, at), version in newest]
        return sorted(rows, key=lambda row: row[0].name)

    async def delete(self, name: str) -> None:
        """Withdraw it, or raise NotFoundError."""
        self._check(name)
        self._live.remove(name)

    def _check(self, name: str) -> None:
        if name not in self._live:
            raise NotFoundError(f"there is no policy {name!r}")


class MemorySecrets:
    """Sealed secrets, newest version of each."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[SealedSecret, datetime, datetime]] = {}

    async def put(self, secret: SealedSecret, at: datetime) -> None:
        """Write the next version, or raise ConflictError."""
        last = self._kept.get(secret.name)
        if secret.version != (last[0].version if last else 0) + 1:
            raise ConflictError(f"the secret {secret.name!r} was written meanwhile; try again")
        self._kept[secret.name] = (secret, last[1] if last else at, at)

    async def sealed(self, names: Sequence[str]) -> list[SealedSecret]:
        """Return those that exist, by name."""
        return [self._kept[name][0] for name in sorted(set(names)) if name in self._kept]

    async def list(self) -> list[SecretInfo]:
        """Return what may be told, by name."""
        return [
            SecretInfo(
                name=name,
                version=secret.version,
                hosts=secret.hosts,
                created_at=created_at,
                updated_at=updated_at,
            )
            for name, (secret, created_at, updated_at) in sorted(self._kept.items())
        ]

    async def delete(self, name: str) -> None:
        """Forget it, or raise NotFoundError."""
        if self._kept.pop(name, None) is None:
            raise NotFoundError(f"there is no secret {name!r}")


class MemoryAudit:
    """Audit records and how far each segment is read."""

    def __init__(self) -> None:
        self._records: dict[str, AuditRecord] = {}
        self._positions: dict[str, int] = {}

    async def append(self, records: Sequence[AuditRecord], *, segment: str, position: int) -> None:
        """Add records; one that is there already stays as it is."""
        for record in records:
            self._records.setdefault(record.id, record)
        self._positions[segment] = position

    async def positions(self) -> dict[str, int]:
        """Return bytes indexed of each segment."""
        return dict(self._positions)

    async def query(
        self,
        *,
        session_id: str | None = None,
        sandbox_id: str | None = None,
        allowed: bool | None = None,
        limit: int = 100,
    ) -> list[AuditRecord]:
        """Return the newest first."""
        found = [
            record
            for record in self._records.values()
            if (session_id is None or record.session_id == session_id)
            and (sandbox_id is None or record.sandbox_id == sandbox_id)
            and (allowed is None or record.allowed == allowed)
        ]
        return sorted(found, key=lambda record: (record.at, record.id), reverse=True)[:limit]


class MemorySandboxes:
    """Records of sandboxes."""

    def __init__(self) -> None:
        self._records: dict[str, SandboxRecord] = {}

    async def save(self, record: SandboxRecord) -> None:
        """Insert or replace."""
        self._records[record.id] = record

    async def get(self, sandbox_id: str) -> SandboxRecord:
        """Return it, or raise NotFoundError."""
        if sandbox_id not in self._records:
            raise NotFoundError(f"there is no sandbox {sandbox_id!r}")
        return self._records[sandbox_id]

    async def list(self, *, include_gone: bool = False, limit: int = 1000) -> list[SandboxRecord]:
        """Return the newest first."""
        found = [
            record
            for record in self._records.values()
            if include_gone or record.state is not SandboxState.GONE
        ]
        return sorted(found, key=lambda record: (record.created_at, record.id), reverse=True)[
            :limit
        ]

    async def counts(self) -> Mapping[tuple[str, str], int]:
        """Count those that are not gone, by state and tier."""
        kept = [one for one in self._records.values() if one.state is not SandboxState.GONE]
        return Counter((one.state.value, one.tier) for one in kept)


class MemoryPlaceholders:
    """Placeholders of sessions."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, KeptPlaceholder]] = {}

    async def put(self, session_id: str, kept: KeptPlaceholder) -> None:
        """Insert, or replace that of the same variable."""
        self._kept.setdefault(session_id, {})[kept.variable] = kept

    async def list(self, session_id: str) -> list[KeptPlaceholder]:
        """Return those of a session, by variable."""
        return [kept for _, kept in sorted(self._kept.get(session_id, {}).items())]

    async def delete(self, session_id: str) -> None:
        """Forget those of a session."""
        self._kept.pop(session_id, None)


class MemoryModels:
    """Models of the local brain."""

    def __init__(self) -> None:
        self._models: dict[str, ModelSettings] = {}

    async def put(self, settings: ModelSettings) -> None:
        """Insert or replace."""
        self._models[settings.name] = settings

    async def get(self, name: str) -> ModelSettings | None:
        """Return it, or None."""
        return self._models.get(name)

    async def list(self) -> list[ModelSettings]:
        """Return all, by name."""
        return [self._models[name] for name in sorted(self._models)]

    async def delete(self, name: str) -> None:
        """Forget it, or raise NotFoundError."""
        if self._models.pop(name, None) is None:
            raise NotFoundError(f"there is no model {name!r}")


class MemoryControlSecrets:
    """Secrets of our own, in clear: only for tests."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    async def put(self, name: str, value: str) -> None:
        """Insert or replace."""
        self._values[name] = value

    async def get(self, name: str) -> str | None:
        """Return the value, or None."""
        return self._values.get(name)

    async def delete(self, name: str) -> None:
        """Forget one."""
        self._values.pop(name, None)


class MemoryWebhooks:
    """Webhooks that were received."""

    def __init__(self) -> None:
        self._webhooks: dict[str, ReceivedWebhook] = {}

    async def add(
        self, webhook: ReceivedWebhook, *, keep_from: datetime, keep_at_most: int
    ) -> bool:
        """Add it unless its id is there; drop what is older, and beyond the newest."""
        if webhook.id in self._webhooks:
            return False
        self._webhooks[webhook.id] = webhook
        newest = await self.list(limit=keep_at_most)
        self._webhooks = {one.id: one for one in newest if one.received_at >= keep_from}
        return True

    async def list(self, *, limit: int = 100) -> list[ReceivedWebhook]:
        """Return the newest first."""
        found = sorted(
            self._webhooks.values(), key=lambda one: (one.received_at, one.id), reverse=True
        )
        return found[:limit]


class MemoryRuns:
    """Runs."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}

    async def save(self, run: Run) -> None:
        """Insert or replace."""
        self._runs[run.id] = run

    async def get(self, run_id: str) -> Run:
        """Return it, or raise NotFoundError."""
        if run_id not in self._runs:
            raise NotFoundError(f"there is no run {run_id!r}")
        return self._runs[run_id]

    async def list(self, *, limit: int = 100) -> list[Run]:
        """Return the newest first."""
        found = sorted(self._runs.values(), key=lambda one: (one.created_at, one.id), reverse=True)
        return found[:limit]


class MemoryProcesses:
    """Processes that outlive their call."""

    def __init__(self) -> None:
        self._kept: dict[str, ProcessRecord] = {}

    async def save(self, record: ProcessRecord) -> None:
        """Insert or replace."""
        self._kept[record.id] = record

    async def get(self, process_id: str) -> ProcessRecord:
        """Return it, or raise NotFoundError."""
        if process_id not in self._kept:
            raise NotFoundError(f"there is no process {process_id!r}")
        return self._kept[process_id]

    async def running(self) -> list[ProcessRecord]:
        """Return all that are kept as running, by id."""
        found = [one for one in self._kept.values() if one.state is ProcessState.RUNNING]
        return sorted(found, key=lambda one: one.id)

    async def list(self, sandbox_id: str, *, limit: int = 100) -> list[ProcessRecord]:
        """Return those of a sandbox, newest first."""
        found = [one for one in self._kept.values() if one.sandbox_id == sandbox_id]
        return sorted(found, key=lambda one: (one.started_at, one.id), reverse=True)[:limit]

    async def delete(self, process_id: str) -> None:
        """Forget one."""
        self._kept.pop(process_id, None)


class MemoryLeases:
    """Leases, their secrets in clear: only for tests."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], KeptLease] = {}

    async def save(self, lease: KeptLease) -> None:
        """Insert or replace."""
        self._kept[lease.work.id, lease.work.environment_id] = lease

    async def list(self) -> list[KeptLease]:
        """Return all, by work id, then environment."""
        return [self._kept[key] for key in sorted(self._kept)]

    async def remove(self, environment_id: str, work_id: str) -> None:
        """Forget one."""
        self._kept.pop((work_id, environment_id), None)


class MemorySnapshots:
    """What is known of snapshots."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], Snapshot] = {}
        self._pins: dict[str, dict[str, int]] = {}
        self._states: dict[str, SnapshotStatus] = {}

    async def put(self, snapshot: Snapshot) -> None:
        """Insert or replace."""
        kept = msgspec.structs.replace(snapshot, pins=())
        self._kept[snapshot.sandbox_id, snapshot.number] = kept

    async def list(self, sandbox_id: str) -> list[Snapshot]:
        """Return those of a sandbox with their pins, the newest first."""
        pins = self._pins.get(sandbox_id, {})
        return [
            msgspec.structs.replace(
                one, pins=tuple(sorted(n for n, number in pins.items() if number == one.number))
            )
            for (of, _), one in sorted(self._kept.items(), reverse=True)
            if of == sandbox_id
        ]

    async def remove(self, sandbox_id: str, number: int) -> None:
        """Forget one that is not pinned."""
        if number in self._pins.get(sandbox_id, {}).values():
            raise ConflictError(f"snapshot {number} of {sandbox_id} is pinned")
        self._kept.pop((sandbox_id, number), None)

    async def sandboxes(self) -> Sequence[str]:
        """Return the ids of those that have any."""
        return sorted({sandbox_id for sandbox_id, _ in self._kept})

    async def pin(self, sandbox_id: str, name: str, number: int) -> None:
        """Let a name keep one."""
        if (sandbox_id, number) not in self._kept:
            raise NotFoundError(f"{sandbox_id} has no snapshot {number}")
        pins = self._pins.setdefault(sandbox_id, {})
        if len(pins.keys() - {name}) >= MAX_PINS:
            raise ConflictError(f"{sandbox_id} has {MAX_PINS} pins already; remove one")
        pins[name] = number

    async def unpin(self, sandbox_id: str, name: str) -> None:
        """Forget a name."""
        if self._pins.get(sandbox_id, {}).pop(name, None) is None:
            raise NotFoundError(f"{sandbox_id} has no pin {name!r}")

    async def pins(self, sandbox_id: str) -> Mapping[str, int]:
        """Return number by name."""
        return dict(self._pins.get(sandbox_id, {}))

    async def tell(self, status: SnapshotStatus) -> None:
        """Keep how the last try went."""
        self._states[status.sandbox_id] = status

    async def status(self, sandbox_id: str) -> SnapshotStatus:
        """Return it."""
        return self._states.get(sandbox_id) or SnapshotStatus(sandbox_id=sandbox_id)


class MemoryNotices:
    """Notices for brains."""

    def __init__(self) -> None:
        self._kept: dict[str, Notice] = {}

    async def add(self, notice: Notice) -> None:
        """Keep one."""
        self._kept[notice.id] = notice

    async def list(self, session_id: str) -> Sequence[Notice]:
        """Return those of a session, the oldest first."""
        found = [one for one in self._kept.values() if one.session_id == session_id]
        return sorted(found, key=lambda one: (one.at, one.id))

    async def remove(self, ids: Sequence[str]) -> None:
        """Forget those."""
        for one in ids:
            self._kept.pop(one, None)


class MemoryStore:
    """All of it, for one tenant."""

    def __init__(self) -> None:
        self.sessions = MemorySessions()
        self.ledger = MemoryLedger()
        self.agents = MemoryAgents()
        self.policies = MemoryPolicies()
        self.secrets = MemorySecrets()
        self.audit = MemoryAudit()
        self.sandboxes = MemorySandboxes()
        self.placeholders = MemoryPlaceholders()
        self.webhooks = MemoryWebhooks()
        self.runs = MemoryRuns()
        self.processes = MemoryProcesses()
        self.models = MemoryModels()
        self.snapshots = MemorySnapshots()
        self.notices = MemoryNotices()
        self.control_secrets = MemoryControlSecrets()
        self.leases = MemoryLeases()

    async def close(self) -> None:
        """Do nothing: there is no file."""

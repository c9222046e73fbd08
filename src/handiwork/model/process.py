"""Processes that outlive the call that started them: what is kept of each."""

import enum
from datetime import datetime

import msgspec

from handiwork.model.ids import DEFAULT_TENANT
from handiwork.model.sandbox import ListenerInfo


class ProcessState(enum.Enum):
    """LOST: it ended with its sandbox, or with the run of Handiwork that held it; `reason` says."""

    RUNNING = "running"
    EXITED = "exited"
    LOST = "lost"


class ProcessRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One of them. `exit_code` is 128+n after signal n; its environment is not kept."""

    id: str
    tenant: str = DEFAULT_TENANT
    sandbox_id: str
    argv: tuple[str, ...]
    cwd: str
    user: str
    pid: int
    state: ProcessState = ProcessState.RUNNING
    exit_code: int | None = None
    out_of_memory: bool = False
    reason: str = ""
    started_at: datetime
    ended_at: datetime | None = None


class ProcessDetail(msgspec.Struct, frozen=True, kw_only=True):
    """One of them, and where it and its descendants listen now."""

    process: ProcessRecord
    listeners: tuple[ListenerInfo, ...] = ()

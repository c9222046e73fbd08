"""The record of one egress decision."""

from datetime import datetime

import msgspec

from handiwork.model.ids import DEFAULT_TENANT


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One decision: who asked, for what, which rules spoke, how it ended. Paths carry no query.

    `duration_ms` runs from decision to last byte; `injected` names secrets, never values;
    `masked` counts the times an injected value was found on its way back.
    """

    id: str
    at: datetime
    tenant: str = DEFAULT_TENANT
    binding: str
    sandbox_id: str = ""
    session_id: str = ""
    agent_id: str = ""
    tool: str = ""
    tool_use_id: str = ""
    kind: str
    allowed: bool
    rules: tuple[str, ...]
    reason: str = ""
    scheme: str = ""
    host: str = ""
    port: int = 0
    address: str = ""
    method: str = ""
    path: str = ""
    status: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    duration_ms: float = 0.0
    injected: tuple[str, ...] = ()
    masked: int = 0
